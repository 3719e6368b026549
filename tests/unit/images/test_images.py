"""Images: any photo becomes 8-bit RGB, broken ones get a reason, decoding keeps the order."""

import os
from base64 import b64decode
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from pcclip import images
from pcclip.images import (
    BadImage,
    as_text,
    batches,
    contact_sheet,
    data_url,
    decoded_batches,
    file_of,
    in_tar,
    left_alone,
    open_image,
    photos_below,
    thumbnail,
)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """The stand-in for a model's preprocessing."""
    return torch.from_numpy(np.array(image.resize((4, 4)))).permute(2, 0, 1).float()


def pixel(path, at=(0, 0)) -> tuple:
    image = open_image(path)
    assert image.mode == "RGB"
    return image.getpixel(at)


# ---- open_image ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("colour", "shown"),
    [((255, 0, 0, 255), (255, 0, 0)), ((255, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 128), (127, 127, 127))],
)
def test_transparency_is_shown_on_white(tmp_path, colour, shown):
    Image.new("RGBA", (3, 3), colour).save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == shown


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    assert pixel(tmp_path / "a.png") == (255, 255, 255)
    assert pixel(tmp_path / "a.png", (1, 0)) == (0, 255, 0)


@pytest.mark.parametrize(("mode", "transparency"), [("L", 77), ("RGB", (1, 2, 3))])
def test_colour_key_is_transparent(tmp_path, mode, transparency):
    Image.new(mode, (2, 2), transparency).save(tmp_path / "a.png", transparency=transparency)
    assert pixel(tmp_path / "a.png") == (255, 255, 255)


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert pixel(tmp_path / "a.jpg") == pytest.approx((255, 0, 0), abs=3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    Image.fromarray(np.array([[0, 16384, 32768, 65535]], dtype=np.uint16)).save(tmp_path / f"a.{suffix}")
    grey = np.array(open_image(tmp_path / f"a.{suffix}"))[0, :, 0]
    assert grey == pytest.approx([0, 64, 128, 255], abs=1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "YCbCr", "F", "I", "HSV", "LAB"])
def test_every_mode_becomes_rgb(mode):
    assert open_image(Image.new(mode, (5, 3))).mode == "RGB"


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").size == (1, 1)
    assert pixel(str(tmp_path / "a.png")) == (9, 8, 7)


def test_upright_by_exif(tmp_path):
    image = Image.new("RGB", (40, 20), "white")
    image.paste("black", (0, 0, 20, 20))  # the left half is black
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert open_image(tmp_path / "a.jpg").size == (20, 40)
    assert max(pixel(tmp_path / "a.jpg", (10, 5))) < 20
    assert min(pixel(tmp_path / "a.jpg", (10, 35))) > 235


@pytest.fixture
def broken(tmp_path):
    """name -> a file that is no readable image."""
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.jpg", "empty file"),
        ("cut.jpg", "unreadable image"),
        ("text.png", "unreadable image"),
        ("missing.jpg", "missing file"),
        ("folder.png", "unreadable image"),
    ],
)
def test_broken_files_have_a_reason(broken, name, reason):
    with pytest.raises(BadImage, match=f"^{reason}"):
        open_image(broken / name)


def test_the_pixels_are_counted_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    for name, size in (("a.png", (40, 30)), ("a.jpg", (64, 48)), ("b.jpg", (640, 480))):
        Image.new("RGB", size).save(tmp_path / name)
    with pytest.raises(BadImage, match=r"^40 x 30 pixels, more than 0 million"):
        open_image(tmp_path / "a.png")
    assert open_image(tmp_path / "a.jpg").size == (32, 24), "a JPEG is decoded at half its size"
    with pytest.raises(BadImage, match="^640 x 480 pixels"):
        open_image(tmp_path / "b.jpg")
    monkeypatch.undo()
    Image.new("L", (4000, 1)).save(tmp_path / "thin.png")
    with pytest.raises(BadImage, match="^4000 x 1 pixels, more than 2500 times longer"):
        open_image(tmp_path / "thin.png")


@pytest.mark.parametrize(
    ("values", "suffix", "shown"),
    [
        (np.array([[0, 2048, 4095]], dtype=np.uint16), "png", [0, 128, 255]),  # 12 bits
        (np.array([[0, 50_000, 200_000]], dtype=np.int32), "tif", [0, 64, 255]),
        (np.array([[-100_000, 0, 100_000]], dtype=np.int32), "tif", [0, 128, 255]),
        (np.array([[-1.0, np.nan, 1.0]], dtype=np.float32), "tif", [0, 128, 255]),
        (np.array([[0.0, np.inf, 1.0]], dtype=np.float32), "tif", [0, 255, 255]),
        (np.array([[7, 7]], dtype=np.int32), "tif", [0, 0]),
    ],
)
def test_wide_greys_keep_their_range(tmp_path, values, suffix, shown):
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert np.array(open_image(tmp_path / f"a.{suffix}"))[0, :, 0] == pytest.approx(shown, abs=1)


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of (tag, type, count, four bytes)."""
    rows = [
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + n.to_bytes(4, "little") + v
        for tag, kind, n, v in entries
    ]
    return b"Exif\0\0II*\0\x08\0\0\0" + len(rows).to_bytes(2, "little") + b"".join(rows) + b"\0" * 4


TURNED = (0x0112, 3, 1, b"\x06\0\0\0")


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (exif(TURNED), (20, 40)),
        (exif(TURNED, (0x0100, 8, 1, b"\xfb\xff\0\0")), (20, 40)),  # a negative width, which cannot be written again
        (exif(TURNED, (0x0100, 9, 1, b"\xfb\xff\xff\xff")), (20, 40)),
        (exif(TURNED, (0x927C, 7, 2**31 - 1, b"\x26\0\0\0")), (20, 40)),  # longer than the file
        (exif(TURNED, (0x8769, 4, 1, b"\x08\0\0\0")), (20, 40)),  # a directory that is its own child
        (exif((0x0112, 2, 2, b"6\0\0\0")), (20, 40)),
        (exif((0x010F, 2, 9, b"\xff\xff\xff\0"), TURNED), (20, 40)),  # Pillow stops at a text that is not there
        (exif((0x0112, 3, 1, b"\xff\xff\0\0")), (40, 20)),
        (exif(TURNED)[:20], (40, 20)),
    ],
)
def test_a_broken_exif_block_does_not_break_the_photo(tmp_path, block, size):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=block)
    assert open_image(tmp_path / "a.jpg").size == size


def test_any_byte_of_the_exif_block_may_be_wrong(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif(TURNED, (0x011A, 5, 1, b"\x26\0\0\0")))
    whole = (tmp_path / "a.jpg").read_bytes()
    start = whole.index(b"Exif")
    for place in range(start, start + 44):
        for value in (0, 7, 255):
            (tmp_path / "b.jpg").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            assert set(open_image(tmp_path / "b.jpg").size) == {20, 40}


def test_an_error_of_any_class_is_a_bad_image(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", lambda path: (_ for _ in ()).throw(NotImplementedError("no such kind")))
    with pytest.raises(BadImage, match="NotImplementedError"):
        open_image(tmp_path / "a.png")


# ---- folders of photos -----------------------------------------------------------------------------------------------


def test_photos_of_a_folder_and_what_is_left_alone(tmp_path):
    photos = ["a.JPG", "b.jfif", "c.avif", "d.jp2", "e.ppm", "deep/er/f.TIFF", "album x.jpg/g.png", "Zoë/h.webp"]
    copies = [".hidden.jpg", "._a.jpg", ".thumbs/a.jpg", "@eaDir/a.jpg", "deep/Thumbnails/a.jpg", "#recycle/a.jpg"]
    others = ["m.mov", "n.MOV", "o.dng", "notes", "captions.csv"]
    for name in (*photos, *copies, *others, "$RECYCLE.BIN/a.jpg", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names, left = photos_below(tmp_path)
    assert names == sorted(str(tmp_path / name) for name in photos)
    assert left == {".mov": 2, ".dng": 1, "without a suffix": 1}
    assert left_alone(left) == "2 .mov, 1 .dng, 1 without a suffix"
    assert left_alone(Counter()) == ""
    assert images._HEIC or left_alone(Counter({".heic": 1})).endswith(
        "(pip install 'pcclip[heic]' to read .heic and .heif)"
    )


def test_linked_albums_are_followed_once_and_loops_are_not(tmp_path):
    for name in ("photos/album/a.jpg", "photos/z/b.jpg", "elsewhere/c.jpg", "beside.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder = tmp_path / "photos"
    links = {"a_link": folder / "z", "out": tmp_path / "elsewhere", "out2": tmp_path / "elsewhere", "up": tmp_path}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "album" / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "ring").symlink_to("ring")
    names, left = photos_below(folder)
    assert names == [str(folder / name) for name in ("album/a.jpg", "out/c.jpg", "z/b.jpg")]
    assert left == {"broken link": 2}


def test_a_name_that_is_no_utf8(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Image.new("RGB", (3, 2)).save(path)
    [text] = photos_below(tmp_path)[0]
    assert text == as_text(path) != path
    assert text.encode()
    assert open_image(text).size == open_image(path).size == (3, 2)
    assert file_of(text) == path


def put_in_tar(tmp_path, content: bytes) -> tuple[str, int]:
    """A file with `content` between other bytes, and where it starts."""
    (tmp_path / "a.tar").write_bytes(b"x" * 700 + content + b"y" * 9)
    return str(tmp_path / "a.tar"), 700


def test_an_image_inside_a_tar(tmp_path):
    Image.new("RGB", (3, 2), (9, 8, 7)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    tar, start = put_in_tar(tmp_path, content)
    path = in_tar(tar, start, len(content), "folder/key#1.png")
    assert pixel(path) == (9, 8, 7)
    assert file_of(path) == tar
    assert file_of("/x/a.tar") == "/x/a.tar"
    assert file_of("/x/photo #1+2#.png") == "/x/photo #1+2#.png"


@pytest.mark.parametrize(("size", "reason"), [(0, "empty file"), (20, "unreadable image"), (9999, "unreadable image")])
def test_a_broken_image_inside_a_tar_has_a_reason(tmp_path, size, reason):
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    tar, start = put_in_tar(tmp_path, content[:1000])
    with pytest.raises(BadImage, match=f"^{reason}"):
        open_image(in_tar(tar, start, size, "a.jpg"))


def test_a_tar_that_is_gone(tmp_path):
    with pytest.raises(BadImage, match="^missing file"):
        open_image(in_tar(str(tmp_path / "gone.tar"), 512, 10, "a.jpg"))


# ---- decoded_batches -------------------------------------------------------------------------------------------------


def decoded(sources, preprocess, batch_size, workers):
    return decoded_batches(sources, [preprocess], batches(len(sources), batch_size), workers)


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_decoded_keeps_the_order(workers):
    shades = [Image.new("RGB", (6, 6), (k, k, k)) for k in range(10)]
    found = list(decoded(shades, to_tensor, batch_size=4, workers=workers))
    assert [rows for rows, _, _ in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.cat([pixels for _, [pixels], _ in found])[:, 0, 0, 0].tolist() == list(range(10))


def test_decoded_reports_the_bad_ones_where_they_are(broken):
    good = Image.new("RGB", (6, 6), "red")
    sources = [good, broken / "empty.jpg", good, broken / "missing.jpg", broken / "text.png", good]
    found = list(decoded(sources, to_tensor, batch_size=3, workers=2))
    assert [rows for rows, _, _ in found] == [[0, 2], [5]]
    assert [len(pixels) for _, [pixels], _ in found] == [2, 1]
    assert found[0][2] == [(1, "empty file")]
    assert [row for row, _ in found[1][2]] == [3, 4]


def test_decoded_with_nothing_readable_in_a_batch(broken):
    sources = [broken / "empty.jpg", broken / "cut.jpg", Image.new("RGB", (6, 6))]
    first, second = decoded(sources, to_tensor, batch_size=2, workers=8)
    assert (first[0], first[1], len(first[2])) == ([], [], 2)
    assert (second[0], second[2]) == ([2], [])


def test_decoded_without_images():
    assert list(decoded([], to_tensor, batch_size=4, workers=2)) == []


def test_decoded_batches_of_any_rows_for_several_models(broken):
    shades = [Image.new("RGB", (6, 6), (k, k, k)) for k in range(9)]
    shades[5] = broken / "empty.jpg"
    opened = []

    def small(image):
        opened.append(image.getpixel((0, 0))[0])
        return to_tensor(image)[:, :2, :2]

    found = list(decoded_batches(shades, [to_tensor, small], [[8, 3], range(4, 7), [5]], workers=3))
    assert [(rows, bad) for rows, _, bad in found] == [
        ([8, 3], []),
        ([4, 6], [(5, "empty file")]),
        ([], [(5, "empty file")]),
    ]
    assert [[tuple(of_one.shape) for of_one in pixels] for _, pixels, _ in found] == [
        [(2, 3, 4, 4), (2, 3, 2, 2)],
        [(2, 3, 4, 4), (2, 3, 2, 2)],
        [],
    ]
    assert found[0][1][0][:, 0, 0, 0].tolist() == found[0][1][1][:, 0, 0, 0].tolist() == [8, 3]
    assert sorted(opened) == [3, 4, 6, 8]


def test_batches_end_where_the_rows_end():
    assert batches(5, 2, start=10) == [range(10, 12), range(12, 14), range(14, 15)]
    assert batches(0, 2) == []


def test_two_batches_are_decoded_ahead_and_no_more():
    opened = []
    shades = [Image.new("RGB", (6, 6), (k, k, k)) for k in range(12)]

    def noted(image):
        opened.append(image.getpixel((0, 0))[0])
        return to_tensor(image)

    stream = decoded(shades, noted, batch_size=2, workers=1)  # one worker: what is stacked last was decoded last
    assert next(stream)[0] == [0, 1]
    assert len(opened) <= 6
    assert next(stream)[0] == [2, 3]
    assert len(opened) <= 8
    stream.close()
    assert len(opened) <= 8, "what nobody waits for is not decoded"


def test_an_error_in_preprocessing_is_not_a_bad_image():
    def fails(image):
        raise TypeError("no such size")

    with pytest.raises(TypeError, match="no such size"):
        list(decoded([Image.new("RGB", (6, 6))] * 9, fails, batch_size=2, workers=2))


# ---- draft -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path):
    """A smooth JPEG of 800 x 600, as photos are."""
    Image.radial_gradient("L").resize((800, 600)).convert("RGB").save(tmp_path / "large.jpg", quality=95)
    return tmp_path / "large.jpg"


@pytest.mark.parametrize(
    ("at_least", "size"),
    [(None, (800, 600)), (301, (800, 600)), (300, (400, 300)), (150, (200, 150)), (10, (100, 75)), (5000, (800, 600))],
)
def test_a_draft_keeps_both_sides_long_enough(large, at_least, size):
    assert open_image(large, at_least).size == size


def test_a_draft_is_nearly_the_same_picture(large):
    whole, draft = (np.asarray(open_image(large, at_least).resize((64, 64)), dtype=float) for at_least in (None, 128))
    assert 0 < np.abs(whole - draft).max() < 8
    assert np.abs(whole - draft).mean() < 1


def test_a_draft_of_other_formats_is_the_picture_itself(large, tmp_path):
    whole = open_image(large)
    whole.save(tmp_path / "large.png")
    assert np.array_equal(np.asarray(open_image(tmp_path / "large.png", 64)), np.asarray(whole))
    with Image.open(large) as opened:  # an image that somebody else holds is never drafted
        assert open_image(opened, 64).size == (800, 600)


# ---- contact_sheet ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "columns", "grid"), [(7, 3, (3, 3)), (2, 6, (2, 1)), (6, 6, (6, 1))])
def test_sheet_is_a_grid(count, columns, grid):
    photos = [Image.new("RGB", (30, 20))] * count
    sheet = contact_sheet(photos, ["a caption"] * count, columns=columns, side=50)
    assert sheet.size == (grid[0] * 56 + 6, grid[1] * 92 + 6)


def test_sheet_shows_photos_in_order_and_grey_for_an_unreadable_one(broken):
    red, blue = Image.new("RGB", (40, 40), (255, 0, 0)), Image.new("RGB", (40, 40), (0, 0, 255))
    sheet = contact_sheet([red, broken / "cut.jpg", blue], ["a very long caption " * 20, "", "ünïcødé"], side=50)
    centres = [sheet.getpixel((6 + k * 56 + 25, 6 + 25)) for k in range(3)]
    assert centres == [(255, 0, 0), (211, 211, 211), (0, 0, 255)]


def test_sheet_has_the_numbers_it_is_given():
    photo, drawn = [Image.new("RGB", (8, 8))], [{}, {"numbers": [1]}, {"numbers": [87]}]
    plain, same, other = (np.asarray(contact_sheet(photo, ["x"], **given)) for given in drawn)
    assert np.array_equal(plain, same)
    assert not np.array_equal(plain, other)


def test_sheet_of_nothing():
    assert contact_sheet([], []).width > 0


def test_sheet_with_a_caption_of_two_lines():
    contact_sheet([Image.new("RGB", (8, 8))], ["A cat\non a mat"])


# ---- thumbnail -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "smaller"), [((400, 100), (64, 16)), ((30, 20), (30, 20)), ((1, 1000), (1, 64))])
def test_a_thumbnail_is_never_enlarged(tmp_path, size, smaller):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    url = data_url(thumbnail(tmp_path / "a.png", 64))
    kind, content = url.split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(BytesIO(b64decode(content))) as image:
        assert (image.format, image.size) == ("JPEG", smaller)


def test_a_thumbnail_of_a_broken_file_has_a_reason(broken):
    with pytest.raises(BadImage, match="^empty file"):
        thumbnail(broken / "empty.jpg", 64)
