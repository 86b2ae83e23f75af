"""Every kind of picture that people have on disk is converted rightly or refused by name."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resdomains.training import BadSample
from resdomains.vision import find_pictures, pictures, read_header, read_picture
from tests.resdomains.vision.support import save_noise


def grey_ramp() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.arange(6 * 5, dtype=np.uint8).reshape(6, 5) * 8


def test_grey_gives_three_equal_channels_or_one(tmp_path: Path) -> None:
    Image.fromarray(grey_ramp()).save(tmp_path / "grey.png")
    colour, grey = (read_picture(tmp_path / "grey.png", n) for n in (3, 1))
    expected = torch.from_numpy(grey_ramp())
    assert colour.shape == (3, 6, 5)
    assert all(torch.equal(channel, expected) for channel in colour)
    assert torch.equal(grey[0], expected)
    assert colour.dtype == torch.uint8


def test_colour_becomes_luma_where_one_channel_is_wanted(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), (200, 100, 50)).save(tmp_path / "a.png")
    assert (
        read_picture(tmp_path / "a.png", 1) == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    ).all()


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 4), (10, 20, 30, 255))
    picture.putpixel((0, 0), (10, 20, 30, 0))
    picture.putpixel((1, 0), (10, 20, 30, 128))
    picture.save(tmp_path / "a.png")
    image = read_picture(tmp_path / "a.png", 3)
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 0, 1].tolist() == pytest.approx([132, 137, 142], abs=1)
    assert image[:, 1, 1].tolist() == [10, 20, 30]


def test_palettes_with_a_transparent_colour_are_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 250, 10, 20])
    picture.putpixel((2, 2), 0)
    picture.save(tmp_path / "a.gif", transparency=0)
    image = read_picture(tmp_path / "a.gif", 3)
    assert image[:, 2, 2].tolist() == [255, 255, 255]
    assert image[:, 0, 0].tolist() == [250, 10, 20]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    wide = (np.arange(30, dtype=np.uint16) * 2259).reshape(6, 5)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(wide).save(path)
    with Image.open(path) as stored:
        assert stored.mode.startswith("I")
    assert torch.equal(
        read_picture(path, 1)[0], torch.from_numpy(np.round(wide / 257).astype(np.uint8))
    )
    assert read_picture(path, 3).shape == (3, 6, 5)


def write_png(path: Path, width: int, height: int, depth: int, colour: int, rows: bytes) -> None:
    """Write a PNG that PIL itself cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_sixteen_bit_colour_keeps_its_high_bytes(tmp_path: Path) -> None:
    values = [(1000, 30_000, 65_535), (0, 12_345, 40_000)]
    row = b"\0" + b"".join(struct.pack(">HHH", *pixel) for pixel in values)
    write_png(tmp_path / "a.png", 2, 1, 16, 2, row)
    image = read_picture(tmp_path / "a.png", 3)[:, 0].T.tolist()
    for pixel, wide in zip(image, values, strict=True):
        assert pixel == pytest.approx([v / 257 for v in wide], abs=1)


@pytest.mark.parametrize(("mode", "what"), [("I", "32-bit integer"), ("F", "floating point")])
def test_pixels_of_unknown_scale_are_refused(tmp_path: Path, mode: str, what: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(BadSample, match=rf"a\.tif: .*{what} pixels.* save it with 8 or 16 bits"):
        read_picture(tmp_path / "a.tif", 3)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read_picture(tmp_path / "a.jpg", 3).float().mean((1, 2)).tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "16 bit png", "jpg", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, kind: str) -> None:
    upright = np.zeros((24, 16), np.uint16 if kind.startswith("16") else np.uint8)
    upright[:8, :8] = 60_000 if kind.startswith("16") else 230  # the upper left corner is bright
    stored = Image.fromarray(upright)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    if orientation > 1:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind.split()[-1]}"
    stored.save(path, exif=exif)
    image = read_picture(path, 1)[0]
    assert image.shape == (24, 16)
    bright = image > 128
    assert bright[:7, :7].all()
    assert not bright[9:].any()
    assert not bright[:, 9:].any()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "gif", "tif", "ppm", "avif"])
def test_usual_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = save_noise(tmp_path / f"a.{suffix}")
    assert read_picture(path, 3).shape == (3, 12, 10)


def damaged(tmp_path: Path, what: str) -> Path:
    whole = save_noise(tmp_path / "whole.jpg", 64, 64).read_bytes()
    path = tmp_path / "bad.jpg"
    match what:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "header only":
            path.write_bytes(whole[:3])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path = tmp_path / "bad.png"
            path.write_text("this is no picture")
        case "cut png":
            png = save_noise(tmp_path / "whole.png", 64, 64).read_bytes()
            path = tmp_path / "bad.png"
            path.write_bytes(png[:-40])
        case "flipped png":
            flipped = bytearray(save_noise(tmp_path / "whole.png", 64, 64).read_bytes())
            flipped[len(flipped) // 2] ^= 0xFF
            path = tmp_path / "bad.png"
            path.write_bytes(flipped)
        case "postscript":
            path = tmp_path / "bad.png"
            path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
        case "folder":
            path = tmp_path / "folder.png"
            path.mkdir()
    return path


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("truncated", "damaged picture.*truncated"),
        ("header only", "not a picture"),
        ("empty", "not a picture"),
        ("text", "not a picture"),
        ("cut png", "damaged picture"),
        ("flipped png", "damaged picture"),
        ("postscript", "not a picture"),
        ("folder", "a folder, not a picture"),
        ("absent", "no such file"),
    ],
)
def test_damaged_files_are_named_with_the_reason(tmp_path: Path, what: str, reason: str) -> None:
    path = damaged(tmp_path, what)
    with pytest.raises(BadSample, match=reason) as caught:
        read_picture(path, 3)
    assert caught.value.source == str(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("side", [9000, 30_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    # The header claims far more pixels than follow; at 9,000 PIL itself says nothing.
    write_png(tmp_path / "bomb.png", side, side, 8, 2, b"")
    with pytest.raises(
        BadSample, match=r"bomb\.png: .*(more than the) [\d,]+ (pixels )?that are accepted"
    ):
        read_picture(tmp_path / "bomb.png", 3)


def test_the_limit_is_on_the_count_of_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_noise(tmp_path / "a.png", 12, 10)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 119)
    with pytest.raises(BadSample, match="10 x 12 pixels, more than the 119"):
        read_picture(path, 3)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 120)
    assert read_picture(path, 3).shape == (3, 12, 10)


def test_pictures_are_found_in_a_fixed_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a.jpeg", ".hidden.png", ".cache/x.png", "b/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = [Path(p).relative_to(tmp_path).as_posix() for p in find_pictures(tmp_path)]
    assert found == ["a.jpeg", "b/1.png", "b/2.JPG"]


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif"])
def test_a_header_states_the_stored_size_and_the_orientation(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (7, 5)).save(tmp_path / f"a.{kind}", exif=exif)
    assert read_header(tmp_path / f"a.{kind}") == (5, 7, 6)
    Image.new("RGB", (7, 5)).save(tmp_path / f"b.{kind}")
    assert read_header(tmp_path / f"b.{kind}") == (5, 7, 1)


def test_a_header_with_a_nonsensical_orientation_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.new("RGB", (7, 5)).save(tmp_path / "a.jpg", exif=exif)
    assert read_header(tmp_path / "a.jpg") == (5, 7, 1)


def test_reading_a_header_decodes_no_pixels(tmp_path: Path) -> None:
    path = save_noise(tmp_path / "a.png", 64, 64)
    path.write_bytes(path.read_bytes()[:2000])
    assert read_header(path) == (64, 64, 1)
    with pytest.raises(BadSample, match="damaged picture"):
        read_picture(path, 3)


def test_a_header_of_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(BadSample, match="not a picture in a format that is read"):
        read_header(tmp_path / "a.jpg")
    with pytest.raises(BadSample, match="no such file"):
        read_header(tmp_path / "b.jpg")
