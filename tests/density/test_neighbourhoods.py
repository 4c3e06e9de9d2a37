import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gancompress import UserError
from lightning_gancompress.density import (
    are_features,
    cache_key,
    density_coverage,
    is_neighbourhoods,
    load_table,
    metrics,
    nearest_neighbours,
    neighbourhoods,
    precision_recall,
    save_table,
)
from lightning_gancompress.density.neighbourhoods import require_neighbours, rows_within


def points(count: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, 7, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("chunk", [1, 4, 10, 33, 1024])
def test_nearest_neighbours_are_those_of_brute_force(chunk):
    features = points(33)
    table = nearest_neighbours(features, 5, chunk)
    assert table.shape == (33, 6)
    assert table.dtype is torch.int64
    for row, own in enumerate(features):
        others = [i for i in range(33) if i != row]
        others.sort(key=lambda i, own=own: -float(own @ features[i]))
        assert table[row].tolist() == [row, *others[:5]]


def test_a_sample_is_not_its_own_neighbour_among_equals():
    table = nearest_neighbours(F.normalize(torch.ones(4, 3)), 3)
    assert [sorted(row) for row in table.tolist()] == [[0, 1, 2, 3]] * 4
    assert table[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("k", [5, 9])
def test_k_must_leave_enough_neighbours(k):
    with pytest.raises(UserError, match=rf"k={k} .*there are 5; choose k between 1 and 4"):
        nearest_neighbours(points(5), k)


def test_the_largest_k_is_all_others():
    assert nearest_neighbours(points(5), 4).shape == (5, 5)
    require_neighbours(2, 1)


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest result of an operation has."""

    numbers = 0

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            self.numbers = max(self.numbers, tensor.numel() if isinstance(tensor, Tensor) else 0)
        return result


@pytest.mark.parametrize("figures", [nearest_neighbours, density_coverage, precision_recall])
def test_memory_grows_no_faster_than_the_features(figures, monkeypatch):
    """No operation makes more numbers than the limit, or than there are features."""
    arguments = [points(300)] if figures is nearest_neighbours else [points(300), points(290, seed=1)]
    whole = figures(*arguments, 5)
    for module in (neighbourhoods, metrics):
        monkeypatch.setattr(module, "AT_ONCE", 2000)
    with Largest() as largest:
        parts = figures(*arguments, 5)
    assert largest.numbers <= 300 * 7
    assert torch.equal(torch.as_tensor(parts), torch.as_tensor(whole))


def test_large_sets_are_compared_in_parts_that_fit():
    assert rows_within(neighbourhoods.AT_ONCE, 50_000, 1024) == 1024
    assert rows_within(neighbourhoods.AT_ONCE, 1_000_000, 1024) == 67
    assert rows_within(1000, 10**9, 1024) == 1


# -- the cache -----------------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_the_key_depends_on_weights_statistics_data_and_k():
    whole = network()
    keys = {cache_key(whole, "files", 5)}
    assert cache_key(copy.deepcopy(whole), "files", 5) in keys

    weights, statistics = copy.deepcopy(whole), copy.deepcopy(whole)
    with torch.no_grad():
        weights[0].weight[0, 0, 0, 0] += 1e-6
    statistics[1].running_mean[2] += 1e-6
    keys |= {cache_key(weights, "files", 5), cache_key(statistics, "files", 5)}
    keys |= {cache_key(whole, "other files", 5), cache_key(whole, "files", 6)}
    assert len(keys) == 5


def test_the_key_sees_settings_that_are_no_tensors():
    strided = network()
    strided[0].stride = (2, 2)
    assert cache_key(network()) != cache_key(strided)


def test_parts_of_the_key_do_not_run_together():
    assert cache_key(5, 12) != cache_key(51, 2)
    assert cache_key("ab", "c") != cache_key("a", "bc")


def test_the_key_does_not_depend_on_precision_of_print_or_device_state():
    key = cache_key(network())
    assert key == cache_key(network().eval()) == cache_key(network().requires_grad_(False))
    assert len(key) == 24


def any_table(table):
    return True


def test_a_saved_table_comes_back(tmp_path):
    table = nearest_neighbours(points(9), 3)
    save_table(tmp_path / "new" / "folder", "key", table)
    assert torch.equal(load_table(tmp_path / "new" / "folder", "key", any_table), table)
    assert load_table(tmp_path / "new" / "folder", "other", any_table) is None
    assert load_table(tmp_path / "missing", "key", any_table) is None


def test_a_reader_never_sees_part_of_a_table(tmp_path, monkeypatch):
    old, new = torch.zeros(3, 2).long(), torch.ones(3, 2).long()
    save_table(tmp_path, "key", old)
    seen = []

    def slow(table, path):
        path.write_bytes(b"half")
        seen.append(load_table(tmp_path, "key", any_table))
        raise RuntimeError("power cut")

    monkeypatch.setattr(torch, "save", slow)
    with pytest.raises(RuntimeError, match="power cut"):
        save_table(tmp_path, "key", new)
    assert torch.equal(seen[0], old)
    assert torch.equal(load_table(tmp_path, "key", any_table), old)
    assert [path.name for path in tmp_path.iterdir()] == ["key.pt"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no table at all"),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: torch.save({"table": torch.zeros(2)}, path),
        lambda path: torch.save(nn.Linear(2, 2), path),
        lambda path: path.unlink() or path.mkdir(),
    ],
    ids=["empty", "text", "cut", "dictionary", "object", "folder"],
)
def test_a_broken_cache_file_is_no_table(tmp_path, damage):
    save_table(tmp_path, "key", nearest_neighbours(points(9), 3))
    damage(tmp_path / "key.pt")
    assert load_table(tmp_path, "key", any_table) is None


def test_a_table_of_neighbours_is_checked():
    table = nearest_neighbours(points(9), 3)
    assert is_neighbourhoods(table, 9, 3)


@pytest.mark.parametrize(
    "change",
    {
        "of another type": lambda table: table.float(),
        "of narrower numbers": lambda table: table.int(),
        "without rows": lambda table: table[:-1],
        "with further rows": lambda table: torch.cat([table, table[:1]]),
        "without a column": lambda table: table[:, :-1],
        "flat": lambda table: table.flatten(),
        "empty": lambda table: table[:0],
        "beyond the images": lambda table: table.index_put(
            (torch.tensor(3), torch.tensor(1)), torch.tensor(9)
        ),
        "negative": lambda table: table.index_put((torch.tensor(3), torch.tensor(1)), torch.tensor(-1)),
        "without its own image": lambda table: table.roll(1, 0),
        "with an image twice": lambda table: table.index_put(
            (torch.tensor(3), torch.tensor(1)), torch.tensor(3)
        ),
    }.items(),
    ids=lambda change: change[0],
)
def test_another_table_is_none(tmp_path, change):
    save_table(tmp_path, "key", change[1](nearest_neighbours(points(9), 3)))
    assert load_table(tmp_path, "key", lambda table: is_neighbourhoods(table, 9, 3)) is None


@pytest.mark.parametrize(
    "features",
    [
        torch.ones(4, 63),
        torch.ones(4, 64).long(),
        torch.full((4, 64), torch.nan),
        torch.ones(64),
        torch.ones(0, 64),
    ],
)
def test_features_are_checked(features):
    assert are_features(torch.ones(4, 64), 64)
    assert not are_features(features, 64)
