import io
import re
import threading

import numpy as np
import pytest
from demo_site import picture, png, small_model
from PIL import ExifTags, Image

from lightning_gancompress import Translator, UserError

pytest.importorskip("starlette")
from lightning_gancompress.demo import app, models


def pixels(image):
    return np.asarray(image).tolist()


def milliseconds(answer):
    return float(re.fullmatch(r"model;dur=([\d.]+)", answer.headers["server-timing"])[1])


@pytest.mark.parametrize("size", ["restored", "kept"])
def test_an_upload_becomes_what_the_translator_makes_of_it(site, size):
    for role, path in (("student", site.student), ("teacher", site.teacher)):
        answer = site.ask(f"/{role}?size={size}", png(picture()))
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
        assert pixels(answer.picture) == pixels(Translator(path).translate(picture(), size=size))
        assert 0 < milliseconds(answer) < 60_000


def test_the_source_is_shown_as_networks_read_it(site):
    file, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture(60, 40).save(file, "JPEG", exif=exif)
    answer = site.ask("/source", file.getvalue())
    assert (answer.headers["content-type"], answer.picture.size) == ("image/jpeg", (40, 60))
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert site.ask("/source", png(clear)).picture.getpixel((4, 4)) == (255, 255, 255)


def test_label_maps_are_shown_in_colours(tmp_path):
    labels = {"encoding": "one_hot", "classes": 4}
    record = {"crop_size": 32, "in_channels": 4, "labels": labels}
    student = models.DemoModel("student", small_model(tmp_path / "a.pth", 2, record, in_channels=4))
    numbers = Image.fromarray(np.full((16, 16), 1, np.uint8))
    shown = Image.open(io.BytesIO(student.source(png(numbers)).content))
    assert np.abs(np.subtract(shown.getpixel((8, 8)), (0, 128, 0))).max() < 10


@pytest.mark.parametrize(
    ("path", "upload", "status", "words"),
    [
        ("/student", b"no picture", 400, "Image upload can't be decoded (it is in no format that is read)"),
        ("/student", b"", 400, "Image upload can't be decoded (it is in no format"),
        ("/student", png(picture())[:300], 400, "Image upload can't be decoded (image file is truncated"),
        ("/source", png(picture())[:300], 400, "Image upload can't be decoded (image file is truncated"),
        ("/student", b"%PDF-1.4 " * 9, 400, "it is in no format that is read"),
        ("/student", png(picture(5200, 5200, "1")), 400, "5200x5200 pixels of a picture are too many"),
        ("/student", png(picture(20_000, 4, "1")), 400, "and 16384 a side are the most: shrink the picture."),
        ("/student?size=kept", png(picture(1600, 1600)), 400, "1600x1600 pixels for the model are too many"),
        ("/student?size=huge", png(picture()), 400, "size is 'huge': give restored or model or kept."),
        ("/student", bytes(app.MOST_BYTES + 1), 413, "more than 20 MiB, which is the most here: shrink it."),
        ("/nobody", png(picture()), 404, "Not Found"),
    ],
)
def test_what_is_no_picture_for_a_model_is_refused_in_a_sentence(site, path, upload, status, words):
    answer = site.ask(path, upload)
    assert (answer.status, words in answer.text, answer.text.count("\n")) == (status, True, 0), answer.text


def test_a_bomb_is_refused_before_it_is_decoded(site, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    answer = site.ask("/student", png(picture()))
    assert (answer.status, "can't be decoded (Image size (1536 pixels) exceeds" in answer.text) == (400, True)


def test_a_size_that_a_network_cannot_take_is_refused_without_the_folders_of_this_machine(tmp_path):
    model = models.DemoModel("student", small_model(tmp_path / "small.pth", 2))
    model._timed.multiple = None  # as of a file of one size
    with pytest.raises(UserError, match=r"^small\.pth takes images of 32x32 pixels alone, and upload has"):
        model.translate(png(picture(48, 32)), "kept")
    assert Image.open(io.BytesIO(model.translate(png(picture(32, 32)), "kept").content)).size == (32, 32)


def test_pictures_are_translated_one_at_a_time(site, monkeypatch):
    inside, most = [], []

    def work(self, upload, size):
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.02)
        inside.pop()
        return models.Made(b"", "image/png")

    monkeypatch.setattr(models.DemoModel, "translate", work)
    threads = [threading.Thread(target=site.ask, args=("/student", b"x")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


# -- the page -------------------------------------------------------------------------------------------


def test_the_page_compares_both_networks_and_loads_nothing_from_elsewhere(site):
    page = site.ask("/")
    assert page.status == 200
    assert "Fewer MACs, exact" in page.text
    assert "small.pth" in page.text
    assert "&lt;b&gt;second.png" in page.text
    assert "<b>second" not in page.text
    texts = [page.text, site.ask("/style.css").text, site.ask("/demo.js").text]
    assert [text for text in texts if re.search(r"https?://|//cdn|@import|\bstyle=|\bonclick=", text)] == []
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"


def test_without_a_teacher_the_page_shows_the_student(tmp_path):
    student = models.DemoModel("student", small_model(tmp_path / "a.pth", 2))
    text = app.Demo([student]).html()
    assert "What the small network makes of a picture" in text
    assert "teacher" not in text


def test_figures_are_those_of_the_networks(site, tmp_path):
    pytest.importorskip("onnxscript")
    from lightning_gancompress import load_generator
    from lightning_gancompress.evaluation.metrics import BYTES, MACS_EXACT
    from lightning_gancompress.export import export_onnx

    torch = pytest.importorskip("torch")
    network, path = load_generator(site.student), tmp_path / "small.onnx"
    export_onnx(network, path, torch.zeros(1, 3, 32, 32))
    exported, own = (models.DemoModel("student", file).figures for file in (path, site.student))
    assert exported[MACS_EXACT] == own[MACS_EXACT] > 0
    assert exported[BYTES] == path.stat().st_size
    assert own[BYTES] == sum(tensor.nbytes for tensor in network.state_dict().values())


def test_samples_are_served_by_number(site):
    assert site.ask("/samples/0").content == png(picture())
    small = site.ask("/thumbnails/1")
    assert (small.headers["content-type"], small.picture.size) == ("image/jpeg", (48, 32))
    broken = site.ask("/thumbnails/2")
    assert (broken.status, "truncated" in broken.text) == (400, True)
    assert site.ask("/samples/3").status == 404
    for path in ("/samples/..%2f..%2fetc%2fpasswd", "/samples/-1", "/../server.py", "/templates/page.html"):
        assert site.ask(path).status == 404


# -- other sites ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("192.168.1.7:8000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_only_own_names_are_answered(site, host, status):
    answer = site.ask("/", headers={"Host": host})
    assert answer.status == status
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_pages_of_other_sites_are_not_answered(site, origin):
    own = {"Origin": site.address.rstrip("/")}
    assert site.ask("/student", png(picture()), own).status == 200
    answer = site.ask("/student", png(picture()), {"Origin": origin})
    assert (answer.status, "access-control-allow-origin" in answer.headers) == (403, False)
