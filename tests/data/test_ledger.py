import torch

from lightning_gancompress.data.ledger import Ledger, first_of_each

CPU = torch.device("cpu")


def test_images_count_once_in_the_order_of_their_positions():
    ledger = Ledger[str](CPU)
    ledger.add("a", torch.tensor([2, 0]), 2, {"value": torch.tensor([20.0, 0.0])})
    ledger.add("a", torch.tensor([0, 1]), 2, {"value": torch.tensor([0.0, 10.0])})
    ledger.add("b", torch.tensor([5]), 1, {})
    assert ledger.groups == ["a", "b"]
    count, rows = ledger.gather("a")
    assert count == 3
    assert rows["value"].tolist() == [0.0, 10.0, 20.0]
    assert ledger.gather("b") == (1, {})
    assert ledger.groups == []


def test_images_without_positions_are_all_different():
    ledger = Ledger[str](CPU)
    for part in torch.arange(5.0).split(2):
        ledger.add("a", None, len(part), {"value": part})
    count, rows = ledger.gather("a")
    assert (count, rows["value"].tolist()) == (5, [0.0, 1.0, 2.0, 3.0, 4.0])


def test_first_of_each():
    assert first_of_each(torch.tensor([7, 2, 7, 0, 2])).tolist() == [3, 1, 0]
    assert first_of_each(torch.empty(0, dtype=torch.long)).tolist() == []
