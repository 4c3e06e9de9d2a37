import itertools

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from noise_files import noise, write_aligned
from PIL import Image

from lightning_gancompress.data import PairedDataModule, datasets
from lightning_gancompress.data.reading import read_header
from lightning_gancompress.errors import UserError


def module(root, **options):
    return PairedDataModule(str(root), **{"load_size": 8, "crop_size": 8, "num_workers": 0, **options})


def pairs(root, split, augment=False, **options):
    return module(root, **options).datasets(split, augment)["generator"]


def pixels(tensor):
    return ((tensor + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()


def split_in_two(root, name_a, name_b):
    """Move the halves of train/ and val/ to folders of their own."""
    for split in ("train", "val"):
        for file in sorted((root / split).glob("*.png")):
            image = Image.open(file)
            for name, left in ((name_a, 0), (name_b, 8)):
                target = root / name.format(split=split) / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                image.crop((left, 0, left + 8, 8)).save(target)
            file.unlink()


def test_halves_become_source_and_target_by_direction(root):
    whole = np.asarray(Image.open(root / "val" / "03.png"))
    for direction, left, right in (("AtoB", 0, 8), ("BtoA", 8, 0)):
        sample = pairs(root, "val", direction=direction)[3]
        assert np.array_equal(pixels(sample["source"]), whole[:, left : left + 8])
        assert np.array_equal(pixels(sample["target"]), whole[:, right : right + 8])
        assert (sample["index"], sample["path"]) == (3, str(root / "val" / "03.png"))


@pytest.mark.parametrize(
    ("name_a", "name_b"),
    [
        ("{split}A", "{split}B"),
        ("{split}_A", "{split}_B"),
        ("{split}/A", "{split}/B"),
        ("A/{split}", "B/{split}"),
    ],
)
def test_two_folders_are_the_same_as_one(root, name_a, name_b):
    expected = pairs(root, "train")[5]
    split_in_two(root, name_a, name_b)
    found = pairs(root, "train")[5]
    assert len(pairs(root, "train")) == 11
    assert torch.equal(found["source"], expected["source"])
    assert torch.equal(found["target"], expected["target"])


def test_batch_of_greyscale_source(root):
    batch = next(iter(module(root, batch_size=4, in_channels=1).train_dataloader()))
    assert batch["source"].shape == (4, 1, 8, 8)
    assert batch["target"].shape == (4, 3, 8, 8)
    assert batch["index"].dtype == torch.int64
    assert len(batch["path"]) == 4
    assert batch["target"].min() >= -1
    assert batch["target"].max() <= 1


def test_source_and_target_share_crop_and_flip(tmp_path):
    image = noise(12, 12, 0)
    twin = Image.new("RGB", (24, 12))
    twin.paste(image, (0, 0))
    twin.paste(image, (12, 0))
    (tmp_path / "train").mkdir()
    twin.save(tmp_path / "train" / "twin.png")
    twins = pairs(tmp_path, "train", augment=True, load_size=16)
    views = [twins[epoch] for epoch in range(8)]  # one image: the code is the epoch
    assert all(torch.equal(view["source"], view["target"]) for view in views)
    assert len({view["source"].sum().item() for view in views}) > 4
    assert all(view["index"] == 0 for view in views)


def test_pictures_do_not_depend_on_the_workers(root):
    def batches(workers):
        return list(module(root, batch_size=2, load_size=12, num_workers=workers).train_dataloader())

    for alone, helped in zip(batches(0), batches(2), strict=True):
        assert torch.equal(alone["source"], helped["source"])
        assert torch.equal(alone["index"], helped["index"])


def test_neighbourhoods_switch_to_plain_groups_and_back(root):
    data = module(root, batch_size=2, search_batch_size=6, load_size=12)
    loader = data.train_dataloader()
    assert data.train_dataloader() is loader  # kept, with its workers
    data.search_by({"generator": torch.arange(11)[:, None].add(torch.arange(3)) % 11}, 3)
    plain = torch.cat([batch["source"] for batch in data.plain_train_loader()])
    for batch in data.train_dataloader():
        assert torch.equal(batch["source"], plain[batch["index"]])
        for group in batch["index"].reshape(-1, 3).tolist():
            assert any({c, (c + 1) % 11, (c + 2) % 11} == set(group) for c in group)
    data.end_search()
    assert data.train_dataloader().batch_size == 2


def test_plain_train_loader_is_in_order(root):
    batches = list(module(root, eval_batch_size=4).plain_train_loader())
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(11))


def test_splits_fall_back_to_each_other(root):
    assert [len(pairs(root, split)) for split in ("val", "test")] == [5, 5]
    (root / "val").rename(root / "test")
    assert [len(pairs(root, split)) for split in ("val", "test")] == [5, 5]
    assert len(pairs(root, "train", max_train=4)) == 4


def test_fingerprint_follows_files_and_preprocessing(root):
    prints = [
        module(root).fingerprint(),
        module(root).fingerprint(),
        module(root, direction="BtoA").fingerprint(),
    ]
    noise(16, 9, 0).save(root / "train" / "00.png")
    prints.append(module(root).fingerprint())
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_prediction_keeps_names(root):
    class Names(LightningModule):
        def predict_step(self, batch, batch_idx):
            assert batch["source"].shape[1:] == (1, 8, 8)
            return batch["path"]

    write_aligned(root / "photos" / "deeper", 3)
    data = module(root / "nowhere", predict_folder=str(root / "photos"), in_channels=1, eval_batch_size=2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    found = list(itertools.chain(*trainer.predict(Names(), data)))
    assert found == [str(root / "photos" / "deeper" / f"0{i}.png") for i in range(3)]
    with pytest.raises(UserError, match=r"data\.predict_folder"):
        module(root).predict_dataloader()
    with pytest.raises(UserError, match=r"No images to predict: .*missing is not a folder"):
        module(root, predict_folder=str(root / "missing")).predict_dataloader()


def test_missing_root(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: set data\.root"):
        module(tmp_path / "nowhere").setup("fit")


def test_missing_and_empty_splits_say_what_is_there(root):
    (root / "train").rename(root / "training")
    with pytest.raises(UserError, match=r"No train images .* trainA and trainB, .* holds training/, val/"):
        module(root).setup("fit")
    (root / "train").mkdir()
    (root / "train" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"train holds notes\.txt"):
        module(root).setup("fit")


def test_images_without_partner(root):
    split_in_two(root, "{split}A", "{split}B")
    (root / "trainB" / "07.png").unlink()
    with pytest.raises(UserError, match=r"1 images of .* have no partner.* such as trainA.07\.png: add"):
        module(root).setup("fit")


def test_an_empty_side(root):
    split_in_two(root, "{split}A", "{split}B")
    for file in (root / "trainA").iterdir():
        file.unlink()
    with pytest.raises(
        UserError, match=r"11 images of .* as trainB.00\.png, trainB.01\.png, trainB.02\.png: add"
    ):
        module(root).setup("fit")


def test_images_that_differ_in_ending_only(root):
    split_in_two(root, "{split}A", "{split}B")
    noise(8, 8, 0).save(root / "trainA" / "00.bmp")
    with pytest.raises(UserError, match=r"00\.bmp and .*00\.png differ in their ending"):
        module(root).setup("fit")


def test_pair_of_different_sizes(root):
    split_in_two(root, "{split}A", "{split}B")
    noise(8, 10, 0).save(root / "trainB" / "00.png")
    with pytest.raises(UserError, match=r"\(8x8\) and .*\(8x10\) are a pair"):
        pairs(root, "train")[0]


def test_odd_width(root):
    noise(17, 8, 0).save(root / "train" / "00.png")
    with pytest.raises(UserError, match=r"00\.png is 17 pixels wide"):
        pairs(root, "train")[0]


def test_broken_image_in_a_worker_is_one_sentence(root):
    for file in (root / "train").glob("*.png"):
        file.write_bytes(b"broken")
    with pytest.raises(UserError) as caught:
        next(iter(module(root, num_workers=1).train_dataloader()))
    assert str(caught.value).startswith(f"Image {root}/train/")
    assert str(caught.value).endswith("replace or remove it.")
    assert "Traceback" not in str(caught.value)


def test_images_of_different_sizes_come_one_by_one(root):
    noise(32, 16, 0).save(root / "val" / "01.png")
    data = module(root, preprocess="none", eval_batch_size=4)
    assert [tuple(batch["source"].shape[2:]) for batch in data.val_dataloader()][:2] == [(8, 8), (16, 16)]
    assert [len(batch["source"]) for batch in module(root, eval_batch_size=4).val_dataloader()] == [4, 1]
    noise(16, 8, 0).save(root / "val" / "01.png")
    assert [len(batch["source"]) for batch in data.val_dataloader()] == [4, 1]


def test_headers_are_not_read_again_in_every_epoch(root, monkeypatch):
    noise(32, 16, 0).save(root / "val" / "01.png")
    data, read = module(root, preprocess="none"), []
    monkeypatch.setattr(datasets, "read_header", lambda path: read.append(path) or read_header(path))
    for _ in range(3):
        data.val_dataloader()
    assert sorted(read) == sorted((root / "val").iterdir())


def test_images_of_a_training_batch_that_differ_in_size(root):
    noise(32, 16, 0).save(root / "train" / "07.png")
    data = module(root, preprocess="none", batch_size=2)
    message = r"00.png: 8x8, .*train.07.png: 16x16.*set data.preprocess to resize_and_crop, or .*batch_size"
    with pytest.raises(UserError, match=message):
        data.train_dataloader()
    module(root, preprocess="none", batch_size=1).train_dataloader()
    module(root, batch_size=2).train_dataloader()


def test_images_smaller_than_the_crop_are_told_before_training(root):
    noise(14, 7, 0).save(root / "train" / "07.png")
    message = r"07\.png is 7x7, smaller than data\.crop_size 8: lower it, or set data\.preprocess to res"
    with pytest.raises(UserError, match=message):
        module(root, preprocess="crop", batch_size=2).train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 4}, "in_channels of PairedDataModule is 4"),
        ({"batch_size": 0}, "batch_size of PairedDataModule is 0"),
        ({"load_size": 0}, "load_size of PairedDataModule is 0"),
    ],
)
def test_options_out_of_range(root, options, message):
    with pytest.raises(UserError, match=message):
        module(root, **options)


def test_fewer_images_than_a_batch(root):
    with pytest.raises(UserError, match="11 images, too few for one batch of 12"):
        module(root, batch_size=12).train_dataloader()
