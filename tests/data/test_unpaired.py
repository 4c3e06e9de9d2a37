import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from noise_files import SIZES, noise, write_aligned
from PIL import Image

from lightning_gancompress.data import PairedDataModule, UnpairedDataModule
from lightning_gancompress.errors import UserError


def module(root, **options):
    return UnpairedDataModule(
        str(root), **{"load_size": 8, "crop_size": 8, "num_workers": 0, "batch_size": 2, **options}
    )


def pixels(path):
    image = np.asarray(Image.open(path).convert("RGB"), np.float32)
    return torch.from_numpy((image / 255 - 0.5) / 0.5).permute(2, 0, 1)


def epoch_of(data, epoch):
    """All codes of an epoch, without images."""
    sampler = data.train_dataloader().sampler
    sampler.set_epoch(epoch)
    return list(sampler)


def column(batches, key):
    return torch.cat([batch[key] for batch in batches]).tolist()


def test_training_batch(domains):
    batch = next(iter(module(domains, flip=False).train_dataloader()))
    assert set(batch) == {"A", "B", "index_A", "index_B", "path_A", "path_B"}
    for domain in "AB":
        assert batch[domain].shape == (2, 3, 8, 8)
        assert batch[f"index_{domain}"].dtype == torch.int64
        paths = [
            str(domains / f"train{domain}" / f"{domain}{i:02}.png") for i in batch[f"index_{domain}"].tolist()
        ]
        assert batch[f"path_{domain}"] == paths
        torch.testing.assert_close(batch[domain], torch.stack([pixels(path) for path in paths]))


@pytest.mark.parametrize("pattern", ["{split}_{domain}", "{split}/{domain}", "{domain}/{split}"])
def test_layouts(domains, pattern):
    expected = module(domains).datasets("train")["generator_BtoA"][7]["B"]
    for name in SIZES:
        folder = domains / pattern.format(split=name[:-1], domain=name[-1])
        folder.parent.mkdir(exist_ok=True)
        (domains / name).rename(folder)
    data = module(domains)
    assert [[len(d) for d in data.datasets(s).values()] for s in ("train", "val", "test")] == [
        [5, 11],
        [3, 4],
        [3, 4],
    ]
    assert torch.equal(data.datasets("train")["generator_BtoA"][7]["B"], expected)


def test_an_epoch_lasts_as_long_as_the_larger_domain(domains):
    data = module(domains, batch_size=1)
    loader = data.train_dataloader()
    assert len(loader) == 11
    batches = list(loader)
    assert sorted(column(batches, "index_B")) == list(range(11))
    first, second = column(batches, "index_A")[:5], column(batches, "index_A")[5:10]
    assert sorted(first) == sorted(second) == list(range(5))
    assert first != second
    (domains / "trainB").rename(domains / "other")
    (domains / "trainA").rename(domains / "trainB")
    (domains / "other").rename(domains / "trainA")
    batches = list(module(domains, batch_size=1).train_dataloader())
    assert sorted(column(batches, "index_A")) == list(range(11))
    assert sorted(set(column(batches, "index_B"))) == list(range(5))


def test_who_meets_whom_changes_with_the_epoch_and_the_seed(domains):
    for i in range(5, 11):
        noise(8, 8, seed=i).save(domains / "trainA" / f"A{i:02}.png")  # of equal length now
    data = module(domains)
    orders = [[(a % 11, b % 11) for a, b in epoch_of(data, epoch)] for epoch in range(3)]
    orders.append([(a % 11, b % 11) for a, b in epoch_of(module(domains, seed=1), 0)])
    for i, one in enumerate(orders):
        assert any(a != b for a, b in one)
        for other in orders[:i]:
            assert len(set(one) & set(other)) < 8
    assert epoch_of(module(domains), 1) == epoch_of(data, 1)


def test_views_of_a_and_b_are_independent(domains):
    """The same image in both domains is seen through different crops and flips."""
    for domain in "AB":
        for file in (domains / f"train{domain}").glob("*.png"):
            file.unlink()
        noise(8, 8, 0).save(domains / f"train{domain}" / "only.png")
    loader = module(domains, batch_size=1, load_size=12).train_dataloader()
    same = []
    for epoch in range(16):
        loader.sampler.set_epoch(epoch)
        batch = next(iter(loader))
        same.append(torch.equal(batch["A"], batch["B"]))
    assert sum(same) < 4


def test_evaluation_has_a_loader_per_domain(domains):
    for loaders in (module(domains).val_dataloader(), module(domains).test_dataloader()):
        for loader, domain, count in zip(loaders, "AB", (3, 4), strict=True):
            batches = list(loader)
            assert set(batches[0]) == {domain, f"index_{domain}", f"path_{domain}"}
            assert column(batches, f"index_{domain}") == list(range(count))
    torch.testing.assert_close(batches[0]["B"][2], pixels(domains / "testB" / "B02.png"))


def test_plain_train_loader_has_all_of_a_then_all_of_b(domains):
    batches = list(module(domains, eval_batch_size=4).plain_train_loader())
    assert ["A" in batch for batch in batches] == [True, True, False, False, False]
    assert column(batches[:2], "index_A") == list(range(5))
    assert column(batches[2:], "index_B") == list(range(11))
    assert all(("A" in batch) != ("B" in batch) for batch in batches)


def near(count, k=2):
    return torch.arange(count)[:, None].add(torch.arange(k + 1)) % count


@pytest.mark.parametrize(
    "tables",
    [
        {"generator_AtoB": near(5)},
        {"generator_BtoA": near(11)},
        {"generator_AtoB": near(5), "generator_BtoA": near(11)},
    ],
)
def test_neighbourhoods_per_direction(domains, tables):
    data = module(domains, search_batch_size=4, load_size=12)
    plain = {key: value for role in data.datasets("train").values() for key, value in images(role).items()}
    data.search_by(tables, 2)
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    for batch in batches:
        for role, domain, count in (("generator_AtoB", "A", 5), ("generator_BtoA", "B", 11)):
            index = batch[f"index_{domain}"]
            assert torch.equal(batch[domain], plain[domain][index])  # unaugmented
            if role in tables:
                for pair in index.view(-1, 2).tolist():
                    assert (pair[1] - pair[0]) % count in {1, 2, count - 1, count - 2}
    if "generator_BtoA" not in tables:
        assert len(set(column(batches, "index_B"))) == 8
    data.end_search()
    assert data.train_dataloader().batch_size == 2


def images(dataset):
    domain = dataset.keys[0]
    return {domain: torch.stack([dataset[i][domain] for i in range(len(dataset))])}


def test_greyscale_images_are_converted(domains):
    for name in ("trainA", "testA"):
        for file in (domains / name).glob("*.png"):
            Image.open(file).convert("L").save(file)
    batch = next(iter(module(domains, flip=False).train_dataloader()))
    assert batch["A"].shape == (2, 3, 8, 8)
    assert torch.equal(batch["A"][:, 0], batch["A"][:, 2])
    torch.testing.assert_close(batch["A"][0], pixels(batch["path_A"][0]))


def test_channels_per_domain(domains):
    data = module(domains, in_channels=1, predict_folder=str(domains / "testB"))
    batch = next(iter(data.train_dataloader()))
    assert (batch["A"].shape[1], batch["B"].shape[1]) == (1, 3)
    assert next(iter(data.predict_dataloader()))["source"].shape == (4, 1, 8, 8)
    data = module(domains, in_channels=1, predict_folder=str(domains / "testB"), predict_domain="B")
    batch = next(iter(data.predict_dataloader()))
    assert batch["source"].shape == (4, 3, 8, 8)
    assert batch["path"] == [str(domains / "testB" / f"B0{i}.png") for i in range(4)]


def test_fingerprint_follows_both_domains(domains):
    prints = [module(domains).fingerprint() for _ in range(2)]
    for name in ("trainA", "trainB"):
        noise(8, 9, 0).save(domains / name / "new.png")
        prints.append(module(domains).fingerprint())
    prints.append(module(domains, in_channels=1).fingerprint())
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_only_the_first_images_of_each_domain(domains):
    data = module(domains, max_train=4)
    assert [len(dataset) for dataset in data.datasets("train").values()] == [4, 4]
    assert [len(dataset) for dataset in data.datasets("val").values()] == [3, 4]


def test_images_do_not_depend_on_the_workers(domains):
    def batches(workers):
        return list(module(domains, load_size=12, num_workers=workers).train_dataloader())

    for alone, helped in zip(batches(0), batches(2), strict=True):
        assert torch.equal(alone["A"], helped["A"])
        assert torch.equal(alone["B"], helped["B"])
        assert alone["path_B"] == helped["path_B"]


class Nothing(LightningModule):
    """Notes what validation sees."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.seen = []

    def training_step(self, batch, batch_idx): ...

    def validation_step(self, batch, batch_idx, dataloader_idx):
        self.seen.append((dataloader_idx, sorted(batch)))

    def configure_optimizers(self): ...


def test_lightning_validates_both(domains):
    trainer = Trainer(
        max_steps=-1,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    network = Nothing()
    trainer.fit(network, module(domains))
    assert network.seen == [(0, ["A", "index_A", "path_A"]), (1, ["B", "index_B", "path_B"])]


# -- bad input -----------------------------------------------------------------------------------------------


def test_an_empty_side(domains):
    for file in (domains / "trainB").iterdir():
        file.unlink()
    with pytest.raises(
        UserError, match=r"Domain B has no train images: .* in .*trainA, but .*B holds nothing"
    ):
        module(domains).setup("fit")


def test_sides_of_different_splits(domains):
    (domains / "trainA").rename(domains / "elsewhere")
    (domains / "testB").rename(domains / "testing")
    pattern = (
        r"Domain A has no train images: .*trainB, but .*trainA is not a folder, .* holds elsewhere/, testA/"
    )
    with pytest.raises(UserError, match=pattern):
        module(domains).setup("fit")
    with pytest.raises(UserError, match=r"Domain B has no test images: .*testA, but .*testB is not a folder"):
        module(domains).setup("test")


def test_missing_folders(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: set data\.root"):
        module(tmp_path / "nowhere").setup("fit")
    (tmp_path / "horses").mkdir()
    with pytest.raises(UserError, match=r"No train images .* trainA and trainB, .* holds horses/"):
        module(tmp_path).setup("fit")


def test_pairs_side_by_side(tmp_path):
    write_aligned(tmp_path / "train", 3)
    with pytest.raises(UserError, match=r"train holds images, but no folders A and B: use PairedDataModule"):
        module(tmp_path).setup("fit")


def test_paired_data_module_knows_who_takes_images_without_pairs(domains):
    with pytest.raises(UserError, match=r"no partner .* use UnpairedDataModule"):
        PairedDataModule(str(domains)).setup("fit")


def test_too_few_images(domains):
    with pytest.raises(UserError, match="11 images, too few for one batch of 12"):
        module(domains, batch_size=12).train_dataloader()
    data = module(domains, search_batch_size=4)
    data.search_by({"generator_AtoB": near(5)}, 4)
    with pytest.raises(UserError, match=r"4 members can't be drawn from neighbourhoods of 3 images"):
        data.train_dataloader()


def test_images_of_different_sizes_come_one_by_one(domains):
    noise(16, 8, 0).save(domains / "testB" / "B00.png")
    loader = module(domains, preprocess="none").val_dataloader()[1]
    assert [tuple(batch["B"].shape[2:]) for batch in loader] == [(8, 16), (8, 8), (8, 8), (8, 8)]
    (domains / "trainB" / "B00.png").write_bytes((domains / "testB" / "B00.png").read_bytes())
    with pytest.raises(UserError, match=r"B00\.png: 16x8.* set data\.preprocess to resize_and_crop"):
        module(domains, preprocess="none").train_dataloader()
