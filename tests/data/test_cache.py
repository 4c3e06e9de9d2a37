"""The cache of decoded images changes no batch, whoever fills it, and follows the files."""

import copy
import os
import pickle
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from noise_files import noise
from PIL import Image

from lightning_gancompress.data import ImageError, Labels, PairedDataModule, UnpairedDataModule
from lightning_gancompress.data import cache as cache_module
from lightning_gancompress.data.memory import available_memory
from lightning_gancompress.tasks.role import Role

BASE = {"load_size": 12, "crop_size": 8, "num_workers": 0, "batch_size": 2}
PAIR = 2 * 3 * 10 * 10  # bytes of two images of 10x10 pixels


def module(folder, **options):
    kind = UnpairedDataModule if (folder / "trainA").exists() else PairedDataModule
    return kind(
        str(folder), **{"load_size": 10, "crop_size": 8, "num_workers": 0, "batch_size": 2, **options}
    )


def epochs(loader, count=3):
    batches = []
    for number in range(count):
        loader.sampler.set_epoch(number)
        batches += list(loader)
    return batches


def assert_same(batches, others):
    for one, other in zip(batches, others, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]


@pytest.fixture
def decoded(monkeypatch):
    """The samples that this process decodes."""
    found = []
    of = cache_module.SampleCache.of

    def noted(self, index, files, load):
        return of(self, index, files, lambda n: found.append(n) or load(n))

    monkeypatch.setattr(cache_module.SampleCache, "of", noted)
    return found


@pytest.mark.parametrize("kind", ["root", "domains"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_without_a_cache_and_files_are_decoded_once(request, kind, workers, decoded):
    folder = request.getfixturevalue(kind)
    data, plain = module(folder, num_workers=workers), module(folder, cache_gb=0)
    loader = data.train_dataloader()
    assert_same(epochs(loader), epochs(plain.train_dataloader()))
    # what workers have decoded, this process has as well
    for dataset in loader.dataset.datasets:
        for index in range(len(dataset)):
            dataset[index]
    assert len(decoded) == (0 if workers else sum(map(len, loader.dataset.datasets)))
    both = data.val_dataloader(), plain.val_dataloader()
    for one, other in zip(*(x if isinstance(x, list) else [x] for x in both), strict=True):
        for _ in range(2):
            assert_same(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 1, "direction": "BtoA"},
        {"labels": Labels("palette", 256), "in_channels": 3},
        {"labels": Labels("one_hot", 300, None)},  # classes of more than a byte
        {"target_labels": Labels("colors"), "flip": False},
        {"preprocess": "crop"},
        {"preprocess": "scale_width_and_crop"},
        {"preprocess": "none", "batch_size": 1},
        {"preprocess": "scale_width", "batch_size": 1},
    ],
)
def test_all_ways_of_reading(tmp_path, options, decoded):
    sizes = [(12, 16), (16, 12), (20, 20)] if "preprocess" in options else [(12, 12)] * 3
    for name in ("trainA", "trainB", "val/A", "val/B"):
        (tmp_path / name).mkdir(parents=True)
        for number, size in enumerate(sizes):
            picture = noise(*size, seed=number)
            if options.get("labels") and options["labels"].indexed and name.endswith("A"):
                picture = picture.convert("L")
                if options["labels"].classes == 300 and number == 1:
                    picture = Image.fromarray(np.asarray(picture).astype(np.uint16) + 44)
            picture.save(tmp_path / name / f"{number}.png")
    both = [PairedDataModule(str(tmp_path), **{**BASE, **options}, cache_gb=gb) for gb in (None, 0)]
    assert_same(*(epochs(data.train_dataloader()) for data in both))
    assert sorted(decoded) == [0, 1, 2]


def test_a_changed_file_is_read_again(root, decoded):
    data = module(root)
    dataset = data.train_dataloader().dataset.datasets[0]
    old, other = dataset[3], dataset[4]
    assert torch.equal(dataset[3]["source"], old["source"])
    before = (root / "train" / "03.png").stat()
    noise(16, 8, seed=99).save(root / "train" / "03.png", compress_level=0)
    new = dataset[3]["source"]
    assert not torch.equal(new, old["source"])
    # one of the same length, whose date is set back as copying programs do
    noise(16, 8, seed=98).save(root / "train" / "03.png", compress_level=0)
    os.utime(root / "train" / "03.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not torch.equal(dataset[3]["source"], new)
    assert decoded == [3, 4, 3, 3]
    assert torch.equal(dataset[4]["source"], other["source"])
    noise(40, 20, seed=97).save(root / "train" / "03.png")
    plain = module(root, cache_gb=0).train_dataloader().dataset.datasets[0]
    for _ in range(2):
        assert torch.equal(dataset[3]["target"], plain[3]["target"])
    (root / "train" / "03.png").unlink()
    with pytest.raises(ImageError, match=r"03\.png can't be read"):
        dataset[3]


def test_a_pair_follows_both_of_its_files(root):
    for side in "AB":
        shutil.copytree(root / "val", root / "pairs" / f"train{side}")
    dataset = PairedDataModule(str(root / "pairs"), **BASE).train_dataloader().dataset.datasets[0]
    old = dataset[0]
    noise(16, 8, seed=99).save(root / "pairs" / "trainB" / "00.png", compress_level=0)
    assert torch.equal(dataset[0]["source"], old["source"])
    assert not torch.equal(dataset[0]["target"], old["target"])


def test_the_limit_is_told_and_kept(root, decoded, caplog):
    data, plain = module(root, cache_gb=7.5 * PAIR / 1e9, search_batch_size=6), module(root, cache_gb=0)
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        loader = data.train_dataloader()
    assert "holds 7 of 11 train samples" in caplog.text
    assert "set data.cache_gb to 0.1." in caplog.text
    assert_same(epochs(loader), epochs(plain.train_dataloader()))
    assert loader.dataset.datasets[0].cache.nbytes == 7 * PAIR
    assert {index: decoded.count(index) for index in decoded}[0] == 1
    # the validation gets what is left, a search the room of the training before
    assert data.val_dataloader().dataset.cache.count == 0
    data.search_by({Role("generator"): torch.arange(11)[:, None].add(torch.arange(3)) % 11}, 3)
    assert data.train_dataloader().dataset.datasets[0].cache.count == 11  # of 8x8 pixels


def test_validations_remember_the_images_of_those_before(root, decoded):
    data = module(root)
    for _ in range(3):  # as Lightning, which asks for a loader in every epoch
        list(data.val_dataloader())
    assert set(Counter(decoded).values()) == {1}


def test_no_cache_where_it_has_no_use(root, monkeypatch):
    assert module(root, cache_gb=0).train_dataloader().dataset.datasets[0].cache is None
    assert module(root).test_dataloader().dataset.cache is None  # is read once
    monkeypatch.setattr(cache_module.multiprocessing, "get_start_method", lambda **_: "spawn")
    assert module(root, num_workers=2).train_dataloader().dataset.datasets[0].cache is None
    assert module(root).train_dataloader().dataset.datasets[0].cache.count == 11


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
def test_a_copy_reads_the_files(root, copied):
    dataset = module(root).train_dataloader().dataset
    expected = dataset[(3,)]
    assert_same([copied(dataset)[(3,)]], [expected])


def test_ranks_share_a_quarter_of_what_is_free(root, monkeypatch):
    monkeypatch.setattr(cache_module, "available_memory", lambda: 4 * 2 * 5 * PAIR)
    data = module(root)
    device = SimpleNamespace(root_device=torch.device("cpu"))
    progress = SimpleNamespace(current=SimpleNamespace(processed=0, started=0))
    data.trainer = SimpleNamespace(
        num_devices=2, global_rank=0, world_size=2, strategy=device, fit_loop=progress, overfit_batches=0
    )
    assert data.train_dataloader().dataset.datasets[0].cache.count == 5


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("", {}, 8000 * 1024),
        ("0::/\n", {"memory.max": "max"}, 8000 * 1024),
        ("0::/job/step\n", {"job/memory.max": "5000", "job/step/memory.max": "max"}, 5000),
        ("9:memory:/job\n3:cpu:/\n", {"memory/job/memory.limit_in_bytes": "6000"}, 6000),
    ],
)
def test_memory_of_machine_and_job(tmp_path, membership, limits, expected):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(membership)
    for name, text in limits.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert available_memory(tmp_path / "proc", tmp_path / "groups") == expected
    assert available_memory(tmp_path / "none", tmp_path / "none") > 2**20  # not Linux
