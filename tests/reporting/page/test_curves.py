from pathlib import Path

from lightning_gancompress.reporting.page.curves import border, merge, read_curves


def write(folder: Path, version: int, text: str) -> None:
    path = folder / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_resumed_run_replaces_what_it_repeats(tmp_path):
    write(tmp_path, 9, "epoch,step,train/generator\n0,10,1.0\n0,20,2.0\n1,30,3.0\n")
    write(tmp_path, 10, "epoch,step,train/generator,val/l1\n1,20,5.0,\n1,30,,0.5\n1,40,nan,\n")
    write(tmp_path, 11, "epoch,step,test/student/l1\n0,0,0.25\n")
    curves = read_curves(tmp_path)
    assert curves == {"train/generator": [(10, 1.0), (20, 5.0)], "val/l1": [(30, 0.5)]}


def test_nothing_logged(tmp_path):
    assert read_curves(tmp_path / "logs") == {}


def test_merge_keeps_all_before_the_first_step():
    earlier = [{"step": 1.0, "train/x": 1.0}, {"step": 2.0, "train/x": 1.0}]
    assert merge(earlier, [{"step": 2.0, "train/x": 3.0}]) == [earlier[0], {"step": 2.0, "train/x": 3.0}]


def test_border_lies_between_the_phases():
    search = {"cost/generator_macs": [(10, 1.0), (40, 0.1)], "train/generator_density": [(40, 1.0)]}
    assert border(search) is None
    assert border(search | {"train/generator": [(60, 2.0)]}) == 50
    assert border(search | {"train/discriminator_AtoB_real": [(44, 2.0)]}) == 42


def test_validation_is_one_curve_through_the_border(tmp_path):
    """Releases before 0.2 logged the search's validation under the same name as that of the fine-tuning."""
    write(
        tmp_path,
        0,
        "step,train/x,search/val/l1,val/l1,search/generator_macs\n1,1,,,\n4,,0.5,,0.3\n8,,,0.4,\n",
    )
    write(tmp_path / "old", 0, "step,train/x,val/l1\n1,1,\n4,,0.5\n8,,0.4\n")
    new, old = read_curves(tmp_path), read_curves(tmp_path / "old")
    assert new["val/l1"] == old["val/l1"] == [(4, 0.5), (8, 0.4)]
    assert new["search/generator_macs"] == [(4, 0.3)]
