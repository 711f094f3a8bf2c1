"""Media of several places appear below one folder, and what they are linked from is never written to."""

import pytest

from data_prep.engine.clones import LocalClone, Repositories
from data_prep.engine.links import link, prune
from data_prep.engine.media_tree import bring, find_media, lay
from data_prep.miniatures.studio import Studio
from data_prep.source import MediaFiles, Source, SourceSet
from mmembed.errors import InputError


def files(folder, **contents):
    for name, text in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def seen(folder):
    return {path.relative_to(folder).as_posix() for path in walk(folder) if path.is_file()}


def walk(folder):
    for path in folder.iterdir():
        yield path
        if path.is_dir():
            yield from walk(path)


@pytest.fixture
def tree(tmp_path):
    return tmp_path / "data/source/media"


def test_folders_are_laid_over_each_other_with_few_links(tmp_path, tree):
    one = files(tmp_path / "one", a__1="x", a__2="x", b__3="x")
    two = files(tmp_path / "two", a__4="x", c__5="x")

    link(one, tree / "images", tree)
    assert (tree / "images").is_symlink()
    link(two, tree / "images", tree)
    link(two, tree / "images", tree)

    assert seen(tree) == {"images/a/1", "images/a/2", "images/b/3", "images/a/4", "images/c/5"}
    assert (tree / "images/b").is_symlink()
    assert seen(one) == {"a/1", "a/2", "b/3"}
    assert seen(two) == {"a/4", "c/5"}


def test_media_may_come_to_lie_below_others(tmp_path, tree):
    one, two = files(tmp_path / "one", clips__1="x"), files(tmp_path / "two", frame="x")

    link(one, tree / "video", tree)
    link(two, tree / "video/clips/2", tree)
    link(two, tree, tree)

    assert seen(tree) == {"video/clips/1", "video/clips/2/frame", "frame"}
    assert seen(one) == {"clips/1"}


def test_a_link_to_what_is_gone_is_made_anew(tmp_path, tree):
    one = files(tmp_path / "one", a="x")
    link(one, tree / "images", tree)
    one.rename(tmp_path / "moved")

    link(tmp_path / "moved", tree / "images", tree)

    assert seen(tree) == {"images/a"}


def test_two_different_files_of_one_name_are_refused(tmp_path, tree):
    link(files(tmp_path / "one", a="x", b="same"), tree / "images", tree)
    two = files(tmp_path / "two", a="xx", b="same")

    with pytest.raises(InputError, match=r"images/a: expected one file of that name, got '.*two/a' and '.*one/a'"):
        link(two, tree / "images", tree)


def test_files_of_one_name_and_size_that_differ_are_refused_and_equal_ones_are_not(tmp_path, tree):
    link(files(tmp_path / "one", a="x", b="same"), tree / "images", tree)
    link(files(tmp_path / "equal", b="same"), tree / "images", tree)

    with pytest.raises(InputError, match=r"images/a: expected one file of that name, .* prepare it with --overwrite"):
        link(files(tmp_path / "two", a="y"), tree / "images", tree)


def test_links_below_a_link_of_the_copy_are_known_to_be_of_it(tmp_path, tree):
    far, one = files(tmp_path / "far", x="x"), files(tmp_path / "one", a__1="x")
    (one / "b").symlink_to(far)
    link(one, tree, tree)
    link(files(tmp_path / "two", b__y="x"), tree, tree)

    prune(tree, [one])

    assert seen(tree) == {"a/1", "b/x"}


def test_links_stay_inside_the_data_root_where_they_can(tmp_path, tree):
    inside, outside = files(tmp_path / "data/unpacked/x", a="x"), files(tmp_path / "copies", b="x")

    link(inside, tree / "in", tree)
    link(outside, tree / "out", tree)

    assert not (tree / "in").readlink().is_absolute()
    assert (tree / "out").readlink() == outside
    (tmp_path / "data").rename(tmp_path / "moved")
    assert seen(tmp_path / "moved/source/media") == {"in/a", "out/b"}


def row(**fields):
    return SourceSet("s", "c", "o/rows", media=(MediaFiles(**fields),))


def found(tmp_path, **fields):
    made = row(**fields)
    return find_media(made, made.media[0], Repositories(tmp_path / "data", (tmp_path / "copies",)))


def provide(found, tree, data_root):
    lay(Source(tree.parent.name, "about"), "s", bring(found, data_root), data_root)


def test_the_folder_at_the_beginning_of_archived_paths_is_taken_off(tmp_path, tree):
    studio, packed = Studio(tmp_path / "copies"), files(tmp_path / "packed", MMEB__set__1="x")
    studio.archive(tmp_path / "copies/o/media/x.tar.gz", packed)

    media = found(tmp_path, repo="o/media", files=("*.tar.gz",), into="images", strip="MMEB")
    provide(media, tree, tmp_path / "data")

    assert seen(tree) == {"images/set/1"}
    assert media.archives == ("x.tar.gz",)


def test_archives_go_before_a_folder_that_holds_only_them(tmp_path, tree):
    studio, packed = Studio(tmp_path / "copies"), files(tmp_path / "packed", clip__1="x")
    studio.archive(tmp_path / "copies/o/rows/frames/x.tar.gz", packed, parts=2)

    provide(found(tmp_path, files=("frames/*.tar.gz-*",), root="frames"), tree, tmp_path / "data")

    assert seen(tree) == {"clip/1"}
    assert (tmp_path / "data/unpacked/o/rows/frames/x.tar.gz/clip/1").is_file()


def test_what_lies_unpacked_beside_its_archive_is_linked(tmp_path, tree):
    files(tmp_path / "copies/o/rows/frames", clip__1="x")
    (tmp_path / "copies/o/rows/frames/x.tar.gz").write_text("not even an archive")

    media = found(tmp_path, files=("frames/*.tar.gz",), root="frames", into="frames")
    provide(media, tree, tmp_path / "data")

    assert (tree / "frames/clip/1").is_file()
    assert isinstance(media.clone, LocalClone)
    assert not (tmp_path / "data/unpacked").exists()


def test_media_in_several_archives_come_together(tmp_path, tree):
    studio = Studio(tmp_path / "copies")
    for name in ("a", "b"):
        packed = files(tmp_path / f"packed-{name}", **{f"images__{name}__1": name})
        studio.archive(tmp_path / f"copies/o/rows/{name}.zip", packed)

    provide(found(tmp_path, files=("*.zip",)), tree, tmp_path / "data")

    assert seen(tree) == {"images/a/1", "images/b/1"}


def test_a_folder_outside_the_media_is_refused(tmp_path, tree):
    files(tmp_path / "copies/o/rows", a="x")

    with pytest.raises(InputError, match=r"media: expected a folder below the media, got '\.\./other'"):
        provide(found(tmp_path, into="../other"), tree, tmp_path / "data")


def test_media_that_are_nowhere_are_named(tmp_path):
    (tmp_path / "copies/o/rows").mkdir(parents=True)

    with pytest.raises(InputError, match=r"o/rows: expected media of s: x/\*\.zip, got none in .*copies/o/rows"):
        found(tmp_path, files=("x/*.zip",), root="x")
