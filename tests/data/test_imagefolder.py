"""A folder of class folders is read once, upright, cut and resized; what cannot be read is left out and named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.data import check, imagefolder, load
from lab.errors import DataError


def write(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def pictures(here: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "a newt"):
        for k in range(20):
            write(here / "pictures" / name / f"{k}.png", rng.integers(0, 256, size=(40, 50, 3), dtype=np.uint8))
    return here / "pictures"


def test_classes_are_folders_and_all_images_are_shared_out(pictures: Path) -> None:
    dataset = load(f"imagefolder:{pictures}", seed=0)
    assert dataset.name == "pictures"
    assert dataset.class_names == ("a newt", "cat", "dog")
    assert dataset.image_shape == (3, 32, 32)
    assert (len(dataset.pool), len(dataset.validation), len(dataset.test)) == (42, 6, 12)
    assert np.bincount(dataset.test.labels).tolist() == [4, 4, 4]


def test_an_image_is_cut_to_a_square_around_its_middle_and_resized(here: Path) -> None:
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = (10, 20, 30)  # the middle square
    write(here / "p/a/x.png", wide)
    write(here / "p/b/x.png", np.full((8, 8, 3), 7, dtype=np.uint8))
    folder = imagefolder.load(f"imagefolder:{here / 'p'}@10")
    assert folder.images.shape == (2, 3, 10, 10)
    np.testing.assert_array_equal(folder.images[0], np.broadcast_to(np.array([10, 20, 30])[:, None, None], (3, 10, 10)))
    assert (folder.images[1] == 7).all()


def test_resizing_is_pillows(pictures: Path) -> None:
    folder = imagefolder.load(f"imagefolder:{pictures}@16")
    with Image.open(pictures / "a newt" / "0.png") as opened:
        square = opened.crop((5, 0, 45, 40)).resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(folder.images[0], np.asarray(square).transpose(2, 0, 1))


def test_an_image_stands_upright_by_its_exif_tag(here: Path) -> None:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8] = 255  # the upper half is white
    tag = Image.Exif()
    tag[0x0112] = 3  # turned by 180°
    write(here / "p/a/x.png", pixels, exif=tag)
    write(here / "p/b/x.png", pixels)
    turned, plain = imagefolder.load(f"imagefolder:{here / 'p'}@16").images
    np.testing.assert_array_equal(turned, plain[:, ::-1])


def test_grey_images_have_one_channel_and_colour_is_made_grey_when_asked(here: Path) -> None:
    for name, value in (("a", 50), ("b", 200)):
        write(here / "p" / name / "x.png", np.full((8, 8), value, dtype=np.uint8))
    assert imagefolder.load(f"imagefolder:{here / 'p'}@8").images[:, 0, 0, 0].tolist() == [50, 200]
    write(here / "p/a/y.png", np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8))
    assert imagefolder.load(f"imagefolder:{here / 'p'}@8").images.shape == (3, 3, 8, 8)
    grey = imagefolder.load(f"imagefolder:{here / 'p'}@8,grey").images
    with Image.open(here / "p/a/y.png") as opened:
        assert abs(int(grey[1, 0, 0, 0]) - np.asarray(opened.convert("L"))[0, 0]) <= 1
    assert grey.shape == (3, 1, 8, 8)


def test_files_are_decoded_once_and_again_when_one_changes(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = imagefolder._decode
    monkeypatch.setattr(imagefolder, "_decode", lambda file, side: decoded.append(file) or decode(file, side))
    first, again = (load(f"imagefolder:{pictures}", seed=0) for _ in range(2))
    assert len(decoded) == 60
    assert first.digest == again.digest
    write(pictures / "cat/0.png", np.zeros((9, 9, 3), dtype=np.uint8))
    assert load(f"imagefolder:{pictures}", seed=0).digest != first.digest
    assert len(decoded) == 120


def test_a_damaged_cache_is_made_again(pictures: Path, here: Path) -> None:
    first = load(f"imagefolder:{pictures}", seed=0)
    (cache,) = (here / "data/imagefolder").iterdir()
    cache.write_bytes(cache.read_bytes()[:1000])
    assert load(f"imagefolder:{pictures}", seed=0).digest == first.digest


def test_unreadable_files_are_left_out_and_named_and_other_files_ignored(pictures: Path) -> None:
    (pictures / "cat/broken.jpg").write_bytes(b"not an image")
    whole = (pictures / "dog/3.png").read_bytes()
    (pictures / "dog/cut.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "dog/notes.txt").write_text("no image by its name")
    dataset = load(f"imagefolder:{pictures}", seed=0)
    assert len(dataset.pool) + len(dataset.validation) + len(dataset.test) == 60
    note = "2 files left out, unreadable as images: cat/broken.jpg, dog/cut.png"
    assert dataset.notes == (note,)
    assert note in check.findings(dataset)
    assert load(f"imagefolder:{pictures}", seed=0).notes == (note,)  # from the cache too


def test_train_and_test_folders_are_the_official_parts(here: Path) -> None:
    rng = np.random.default_rng(1)
    for part, n in (("train", 12), ("test", 5)):
        for name in ("a", "b"):
            for k in range(n):
                write(here / "p" / part / name / f"{k}.png", rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8))
    dataset = load(f"imagefolder:{here / 'p'}@8", seed=0)
    folder = imagefolder.load(f"imagefolder:{here / 'p'}@8")
    assert len(dataset.test) == 10
    assert {x.tobytes() for x in dataset.test.images} == {x.tobytes() for x in folder.images[folder.is_test]}


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda here: None, "imagefolder:absent", "absent is not a folder"),
        (lambda here: (here / "p/a").mkdir(parents=True), "imagefolder:p", "1 class folders, expected 2 or more"),
        (lambda here: None, "imagefolder:p@4096", "a side of 4096 pixels"),
        (lambda here: None, "imagefolder:", "give the folder"),
    ],
)
def test_what_is_no_folder_of_classes_is_an_error_of_the_data(here: Path, make, name: str, message: str) -> None:
    make(here)
    with pytest.raises(DataError, match=message):
        load(name, seed=0)


def test_a_class_without_readable_images_is_named(pictures: Path) -> None:
    (pictures / "empty").mkdir()
    with pytest.raises(DataError, match="class empty has no readable image"):
        load(f"imagefolder:{pictures}", seed=0)


def test_a_study_takes_it_by_name_and_is_stored_under_the_name_of_the_folder(pictures: Path) -> None:
    from lab.spec import Study
    from lab.study_file import change

    study, name = change(Study(question="?", data="digits"), "mine", data=f"imagefolder:{pictures}@16,grey")
    assert study.data == f"imagefolder:{pictures}@16,grey"
    assert name == "mine,data=pictures-16-grey"


@pytest.mark.parametrize("most", [None, 50], ids=["palette", "size"])
def test_what_pillow_remarks_of_a_file_is_no_output(here: Path, monkeypatch, most: int | None) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    pixels = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P")
    for name in ("a", "b"):
        (here / "p" / name).mkdir(parents=True)
        pixels.save(here / "p" / name / "x.png", transparency=bytes(range(64)))
    assert len(imagefolder.load(f"imagefolder:{here / 'p'}").images) == 2  # warnings are errors in tests
