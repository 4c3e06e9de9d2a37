from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import BatchSampler

from lightning_gancompress.data import EpochSampler, ShardSampler, ZipSampler
from lightning_gancompress.errors import UserError


def rank_of(rank, world):
    """A trainer in its first epoch, as far as samplers look."""
    progress = SimpleNamespace(current=SimpleNamespace(processed=0, started=0))
    fit_loop = SimpleNamespace(
        restarting=False, epoch_progress=progress, epoch_loop=SimpleNamespace(batch_progress=None)
    )
    return SimpleNamespace(global_rank=rank, world_size=world, fit_loop=fit_loop, overfit_batches=0)


def test_every_epoch_visits_every_image_in_another_order():
    sampler = EpochSampler(range(11), batch_size=2, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == list(range(11))
    assert sorted(second) == list(range(11, 22))  # codes: epoch * N + index
    assert [code - 11 for code in second] != first
    assert list(EpochSampler(range(11), batch_size=2, seed=4)) != first


def test_ranks_get_disjoint_shards_of_equal_length():
    shards = [list(EpochSampler(range(11), 1, trainer=rank_of(r, 3))) for r in range(3)]
    assert [len(shard) for shard in shards] == [3, 3, 3]
    assert len({code for shard in shards for code in shard}) == 9


def test_members_come_from_the_neighbourhood_of_their_centre_once_each():
    # disjoint neighbourhoods, so that a group betrays its centre's row
    table = torch.arange(20).reshape(4, 5).repeat_interleave(5, dim=0)
    sampler = EpochSampler(range(20), 8, neighbourhoods=table, members=4)
    groups = torch.tensor(list(sampler)).reshape(-1, 4)
    assert len(sampler) == 20
    for group in groups:
        assert len(set(group.tolist())) == 4
        assert len(set((group // 5).tolist())) == 1
    # 5 of the 20 centres make an epoch of 20 images; other epochs draw others
    sampler.set_epoch(1)
    assert (torch.tensor(list(sampler)).reshape(-1, 4) - 20 != groups).any()


def test_ranks_share_out_the_centres():
    table = torch.arange(32).reshape(16, 2)  # rows without a common number, so that they betray their centre
    shards = [
        list(EpochSampler(range(16), 4, trainer=rank_of(r, 2), neighbourhoods=table, members=2))
        for r in range(2)
    ]
    assert [len(set(shard)) for shard in shards] == [8, 8]
    assert not set(shards[0]) & set(shards[1])


def test_a_longer_epoch_passes_over_the_images_again():
    sampler = EpochSampler(range(4), 2, length=11)
    assert len(sampler) == 11
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    passes = [first[:4], first[4:8], second[:4], second[4:8]]
    assert all(sorted(code % 4 for code in codes) == list(range(4)) for codes in passes)
    assert len(set(first + second)) == 22  # another augmentation each time
    assert len({tuple(code % 4 for code in codes) for codes in passes}) > 1


def test_ranks_share_out_a_longer_epoch():
    shards = [list(EpochSampler(range(4), 1, trainer=rank_of(r, 2), length=11)) for r in range(2)]
    assert [len(shard) for shard in shards] == [5, 5]
    assert len({code for shard in shards for code in shard}) == 10


def test_groups_repeat_if_the_domain_is_much_smaller():
    table = torch.arange(4)[:, None].add(torch.arange(2)) % 4
    sampler = EpochSampler(range(4), 2, neighbourhoods=table, members=2, length=20)
    groups = torch.tensor(list(sampler)).reshape(-1, 2) % 4
    assert len(groups) == 10
    assert all((a - b) % 4 in {1, 3} for a, b in groups.tolist())


def test_zip_is_as_long_as_the_shortest_and_shares_out_both():
    table = torch.arange(10)[:, None].add(torch.arange(4)) % 10

    def shard(rank):
        trainer = rank_of(rank, 2)
        grouped = EpochSampler(range(10), 4, 0, trainer, table, 4, length=13)
        return ZipSampler([grouped, EpochSampler(range(13), 4, 7, trainer, length=13)])

    shards = [list(shard(rank)) for rank in range(2)]
    assert [len(codes) for codes in shards] == [len(shard(0))] * 2 == [4, 4]
    assert not {b for _, b in shards[0]} & {b for _, b in shards[1]}


def test_zip_sets_the_epoch_of_all():
    both = ZipSampler([EpochSampler(range(5), 1, 0), EpochSampler(range(5), 1, 1)])
    both.set_epoch(2)
    assert {(a // 5, b // 5) for a, b in both} == {(2, 2)}


@pytest.mark.parametrize(
    ("size", "batch", "members", "message"),
    [
        (12, 6, 4, "multiple of the 4"),
        (12, 8, 8, "at most k \\+ 1 = 5"),
        (3, 4, None, "too few for one batch of 4"),
    ],
)
def test_impossible_batches_are_refused(size, batch, members, message):
    table = None if members is None else torch.zeros(size, 5, dtype=torch.long)
    with pytest.raises(UserError, match=message):
        EpochSampler(range(size), batch, neighbourhoods=table, members=members or 4)


def test_evaluation_shards_count_every_image_once():
    shards = [list(ShardSampler(range(5), rank_of(r, 2))) for r in range(2)]
    assert shards == [[0, 2, 4], [1, 3]]
    with pytest.raises(UserError, match="at most 5 devices"):
        ShardSampler(range(5), rank_of(0, 8))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(("images", "batch"), [(32, 8), (29, 4), (7, 2)])
def test_shares_of_whole_batches_are_the_batches_of_one_process(images, batch, world):
    def batches(rank, world):
        return list(
            map(tuple, BatchSampler(ShardSampler(range(images), rank_of(rank, world), batch), batch, False))
        )

    shares = [batches(rank, world) for rank in range(world)]
    assert sorted(chain(*shares)) == batches(0, 1)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_no_rank_is_left_without_images_where_batches_are_few():
    shares = [list(ShardSampler(range(7), rank_of(rank, 3), 8)) for rank in range(3)]
    assert shares == [[0, 1, 6], [2, 3], [4, 5]]
