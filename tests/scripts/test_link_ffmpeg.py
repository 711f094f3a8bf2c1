import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "link_ffmpeg.py"
BUNDLED = ["libavutil-5809ad29.so.60.26.102", "libswscale-88e9f973.so.9.5.102", "libx264-d6533a8d.so.165"]


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("link_ffmpeg", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path, monkeypatch, script):
    """A made-up site-packages with PyAV in it."""
    (tmp_path / "av").mkdir()
    monkeypatch.setattr(script.av, "__file__", str(tmp_path / "av" / "__init__.py"))
    return tmp_path


def test_ffmpegs_own_libraries_are_linked_to_their_sonames(script, site, capsys):
    (site / "av.libs").mkdir()
    for name in BUNDLED:
        (site / "av.libs" / name).write_text(name)

    codes = [script.main([str(site / "links")]) for _ in range(2)]

    assert codes == [0, 0]
    linked = {link.name: link.read_text() for link in (site / "links").iterdir()}
    assert linked == {"libavutil.so.60": BUNDLED[0], "libswscale.so.9": BUNDLED[1]}
    assert f"2 libraries linked; LD_LIBRARY_PATH={site / 'links'}:{site / 'av.libs'}" in capsys.readouterr().out


def test_a_wheel_without_libraries_is_an_error_that_names_the_folder(script, site, capsys):
    assert script.main([str(site / "links")]) == 1

    assert f"{site / 'av.libs'}: no FFmpeg libraries here; install FFmpeg" in capsys.readouterr().err
