import pytest
import torch
from PIL import Image
from tiny_module import Pairs, TinyModule, make_trainer
from torch.utils.data import DataLoader

from lightning_gancompress.callbacks.image_grid import ImageGrid, Spread, draw_grid, to_picture
from lightning_gancompress.metrics import to_uint8
from lightning_gancompress.reporting.grid import GAP, HEADER


def loader(n=5):
    return DataLoader(Pairs(n), batch_size=2)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def test_grid_is_drawn_after_every_so_many_epochs(tmp_path):
    trainer = make_trainer(tmp_path, ImageGrid(every_n_epochs=2), max_epochs=5)
    trainer.fit(TinyModule(), loader(), loader())
    assert files(tmp_path) == ["images/epoch_0001.png", "images/epoch_0003.png"]


def test_sanity_check_draws_nothing(tmp_path):
    trainer = make_trainer(
        tmp_path, ImageGrid(), max_epochs=1, num_sanity_val_steps=2, check_val_every_n_epoch=9
    )
    trainer.fit(TinyModule(), loader(), loader())
    assert trainer.num_sanity_val_batches == [2]
    assert files(tmp_path) == []


def test_validation_and_test_of_their_own(tmp_path):
    trainer = make_trainer(tmp_path, ImageGrid(n_images=3))
    trainer.validate(TinyModule(), loader(), verbose=False)
    trainer.test(TinyModule(), loader(), verbose=False)
    assert files(tmp_path) == ["test/grid.png", "validate/grid.png"]
    # four columns and three rows, though batches are of two
    width, height = Image.open(tmp_path / "test" / "grid.png").size
    assert (height - HEADER - GAP) // (16 + GAP) == 3
    assert (width - GAP) % 4 == 0


def test_cells_hold_the_images_row_by_row():
    columns = {"a": [torch.full((3, 40, 40), v) for v in (-1.0, 1.0)], "b": [torch.zeros(1, 40, 40)] * 2}
    grid = draw_grid(columns)
    assert grid.size == (2 * 42 + GAP, HEADER + 2 * 42 + GAP)
    centres = [
        [grid.getpixel((GAP + 42 * x + 20, HEADER + GAP + 42 * y + 20)) for x in range(2)] for y in range(2)
    ]
    assert centres == [[(0, 0, 0), (128, 128, 128)], [(255, 255, 255), (128, 128, 128)]]
    darkest, _ = grid.crop((0, 0, 42, HEADER)).convert("L").getextrema()
    assert darkest < 128  # the column's name


@pytest.mark.parametrize(
    ("count", "batch", "chosen"),
    [(2, 1, [0, 1]), (4, 3, [0, 1, 2, 3]), (5, 2, [0, 1, 2, 3]), (100, 7, [0, 16, 48, 80])],
)
def test_images_come_from_all_over_the_set(count, batch, chosen):
    spread = Spread(4)
    for images in torch.arange(count).float().view(-1, 1, 1, 1).split(batch):
        spread.add({"source": images, "student": -images})
    columns = spread.columns()
    assert [int(image) for image in columns["source"]] == chosen
    assert [int(-image) for image in columns["student"]] == chosen


def test_pictures_of_any_number_of_channels():
    image = torch.rand(5, 4, 6) * 2 - 1
    for channels, mode in ((1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")):
        picture = to_picture(image[:channels])
        assert (picture.mode, picture.size) == (mode, (6, 4))
    assert to_picture(image).getpixel((5, 0)) == tuple(to_uint8(image)[:3, 0, 5].tolist())


def test_loggers_that_take_images_get_them(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    class ImageLogger(CSVLogger):
        def log_image(self, key, images, step=None):
            seen.append((key, [image.size for image in images]))

    seen = []
    loggers = [CSVLogger(tmp_path), ImageLogger(tmp_path)]
    make_trainer(tmp_path, ImageGrid(), logger=loggers).validate(TinyModule(), loader(), verbose=False)
    assert seen == [("val/images", [Image.open(tmp_path / "validate" / "grid.png").size])]
