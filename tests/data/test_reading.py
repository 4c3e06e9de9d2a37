import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from noise_files import noise
from PIL import Image, features

import lightning_gancompress
from lightning_gancompress.data import ImageError
from lightning_gancompress.data.reading import endings, read_header, read_image

FLAGS = {1: "ab/cd", 2: "ba/dc", 3: "dc/ba", 4: "cd/ab", 5: "ac/bd", 6: "ca/db", 7: "db/ca", 8: "bd/ac"}


def pixels(path):
    return np.asarray(read_image(path)).tolist()


def flag(orientation, size=(30, 20)):
    """A photo of four colours; `FLAGS` says how each orientation shows it."""
    photo = Image.new("RGB", size, "red")
    width, height = size[0] // 2, size[1] // 2
    photo.paste("lime", (width, 0, 2 * width, height))
    photo.paste("blue", (0, height, width, 2 * height))
    photo.paste("white", (width, height, 2 * width, 2 * height))
    photo.getexif()[0x0112] = orientation
    return photo


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_applied(tmp_path, orientation, ending):
    photo = flag(orientation)
    photo.save(tmp_path / f"a.{ending}", exif=photo.getexif(), **({} if ending == "tif" else {"quality": 95}))
    image = read_image(tmp_path / f"a.{ending}")
    width, height = (30, 20) if orientation < 5 else (20, 30)
    assert image.size == read_header(tmp_path / f"a.{ending}").size == (width, height)
    names = {(255, 0, 0): "a", (0, 255, 0): "b", (0, 0, 255): "c", (255, 255, 255): "d"}
    corners = [[image.getpixel((x, y)) for x in (4, width - 5)] for y in (4, height - 5)]
    seen = [
        [min(names, key=lambda c: np.abs(np.subtract(c, pixel)).sum()) for pixel in row] for row in corners
    ]
    assert "/".join("".join(names[colour] for colour in row) for row in seen) == FLAGS[orientation]


def test_damaged_orientation_is_none(tmp_path):
    noise(8, 8, 0).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00nonsense")
    assert read_image(tmp_path / "a.jpg").size == (8, 8)


def test_sixteen_bits_are_refused(tmp_path):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "grey.png")
    Image.fromarray(deep).save(tmp_path / "grey.tif")
    (tmp_path / "colour.ppm").write_bytes(b"P6 2 1 65535\n" + bytes(range(12)))
    (tmp_path / "colour.png").write_bytes(png48(2, 1, bytes(range(12))))
    (tmp_path / "colour.tif").write_bytes(tiff48(2, 1, bytes(range(12))))
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "real.tif")
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(
            ImageError, match=rf"{file.name} has more than 8 bits a channel.* convert it to 8"
        ):
            read_image(file)


def test_five_bits_are_enough(tmp_path):
    header = b"BM" + (54 + 4).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    info = (40).to_bytes(4, "little") + (1).to_bytes(4, "little") * 2 + b"\x01\x00\x10\x00" + bytes(24)
    (tmp_path / "a.bmp").write_bytes(header + info + b"\x00\x7c\x00\x00")
    assert pixels(tmp_path / "a.bmp") == [[[255, 0, 0]]]


def png48(width, height, data):
    """A PNG of 16 bits a channel, which Pillow can't write."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    rows = b"".join(b"\0" + data[y * width * 6 : (y + 1) * width * 6] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff48(width, height, data):
    """An uncompressed TIFF of 16 bits a channel."""
    bits, start = 8 + 2 + 9 * 12 + 4, 8 + 2 + 9 * 12 + 4 + 6
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, start), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(data))]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + struct.pack("<HHH", 16, 16, 16) + data


def test_what_is_transparent_shows_white(tmp_path):
    rgba = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 200, 0))  # blue that nobody sees
    rgba.save(tmp_path / "rgba.png")
    rgba.save(tmp_path / "rgba.webp", lossless=True, exact=True)
    rgba.save(tmp_path / "rgba.tif")
    for file in sorted(tmp_path.iterdir()):
        assert read_header(file).transparent
        assert pixels(file) == [[[200, 0, 0], [255, 255, 255]]]
    half = Image.new("RGBA", (1, 1), (100, 0, 0, 128))
    half.save(tmp_path / "half.png")
    assert pixels(tmp_path / "half.png") == [[[177, 127, 127]]]


def test_transparency_of_grey_palette_and_key_colours(tmp_path):
    grey = Image.new("LA", (2, 1), (50, 255))
    grey.putpixel((1, 0), (50, 0))
    grey.save(tmp_path / "la.png")
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([50, 50, 50, 0, 0, 200])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=1)
    palette.save(tmp_path / "p.gif", transparency=1)
    keyed = Image.new("RGB", (2, 1), (50, 50, 50))
    keyed.putpixel((1, 0), (1, 2, 3))
    keyed.save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    key = Image.new("L", (2, 1), 50)
    key.putpixel((1, 0), 7)
    key.save(tmp_path / "l.png", transparency=7)
    for file in sorted(tmp_path.iterdir()):
        assert np.asarray(read_image(file).convert("L")).tolist() == [[50, 255]]
    assert {file.name for file in tmp_path.iterdir() if read_image(file).mode == "L"} == {"la.png", "l.png"}


def test_colours_become_rgb_and_grey_stays_grey(tmp_path):
    red = Image.new("RGB", (8, 8), (254, 0, 0))
    red.convert("CMYK").save(tmp_path / "cmyk.tif")
    red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    red.convert("YCbCr").save(tmp_path / "ycbcr.tif")
    red.convert("LAB").save(tmp_path / "lab.tif")
    red.quantize(4).save(tmp_path / "palette.png")
    try:
        Image.open(tmp_path / "ycbcr.tif").load()
    except OSError:  # Pillow before 13 can't read the file that it writes
        (tmp_path / "ycbcr.tif").unlink()
    for file in sorted(tmp_path.iterdir()):
        image = read_image(file)
        assert image.mode == "RGB"
        assert np.abs(np.subtract(image.getpixel((3, 3)), (254, 0, 0))).max() <= 5, file
    Image.new("1", (1, 1), 1).save(tmp_path / "bit.png")
    image = read_image(tmp_path / "bit.png")
    assert (image.mode, image.getpixel((0, 0))) == ("L", 255)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_is_read(tmp_path, ending):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if ending == "webp" else {}
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], **options)
    assert read_header(tmp_path / f"a.{ending}").animated
    assert read_image(tmp_path / f"a.{ending}").getpixel((0, 0)) == (255, 0, 0)


def test_endings_are_those_of_pillow_without_documents():
    assert {".jpg", ".jfif", ".png", ".webp", ".gif", ".tif", ".bmp", ".ppm"} <= endings()
    assert (".avif" in endings()) == features.check("avif")
    assert not {".pdf", ".eps", ".ps", ".wmf", ".mpg", ".h5"} & endings()


def test_a_document_in_the_clothes_of_an_image_is_not_run(tmp_path):
    file = io.BytesIO()
    noise(8, 8, 0).save(file, "EPS")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    with pytest.raises(ImageError, match=r"a\.png can't be decoded \(cannot identify"):
        read_image(tmp_path / "a.png")


def test_a_file_that_is_gone_is_not_called_damaged(tmp_path):
    with pytest.raises(ImageError, match=r"a\.png can't be read \(No such file or directory\): put it back"):
        read_image(tmp_path / "a.png")


def test_all_images_are_read_in_one_place():
    package = Path(lightning_gancompress.__file__).parent
    readers = {
        path.name for path in package.rglob("*.py") if "Image.open(" in path.read_text(encoding="utf-8")
    }
    assert readers == {"reading.py", "grid.py"}  # the latter reads the grids of pictures that it has written
