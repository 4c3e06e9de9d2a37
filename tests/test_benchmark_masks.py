"""The benchmark of masked passes still knows the networks that it times."""

import benchmark_masks


def test_a_row_for_each_network_and_share(capsys):
    benchmark_masks.main(
        ["--ngf=4", "--size=32", "--batch=1", "--rounds=1", "--shares", "0.5", "0.25", "--channels-last"]
    )
    _, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert [row[:2] for row in rows] == [
        [kind, share] for kind in benchmark_masks.KINDS for share in ("0.50", "0.25")
    ]
    assert all(float(row[2]) > 0 and float(row[4]) > 0 for row in rows)
