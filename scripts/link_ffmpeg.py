"""Link the FFmpeg libraries of PyAV's wheel to their plain names, so that torchcodec finds an FFmpeg.

Put the folder and the printed library folder on LD_LIBRARY_PATH afterwards. Linux wheels only.
"""

import argparse
import re
import sys
from pathlib import Path

import av

# libavutil-5809ad29.so.60.26.102 is wanted as libavutil.so.60
_BUNDLED = re.compile(r"(lib(?:av[a-z]+|swscale|swresample))-[0-9a-f]+(\.so\.\d+)[.\d]*")


def link(bundled: Path, folder: Path) -> list[Path]:
    """Link every FFmpeg library of ``bundled`` into ``folder`` by its plain soname; gives the links."""
    folder.mkdir(parents=True, exist_ok=True)
    links = []
    for library in sorted(bundled.glob("lib*.so.*")):
        if match := _BUNDLED.fullmatch(library.name):
            links.append(folder / "".join(match.groups()))
            links[-1].unlink(missing_ok=True)
            links[-1].symlink_to(library.resolve())
    return links


def main(argv: list[str]) -> int:
    """Command: ``python scripts/link_ffmpeg.py FOLDER``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that receives the links")
    folder = parser.parse_args(argv).folder
    bundled = Path(av.__file__).parent.parent / "av.libs"
    links = link(bundled, folder)
    if not links:
        print(f"{bundled}: no FFmpeg libraries here; install FFmpeg, or leave torchcodec out", file=sys.stderr)
        return 1
    print(f"{len(links)} libraries linked; LD_LIBRARY_PATH={folder.resolve()}:{bundled}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
