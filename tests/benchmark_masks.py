"""Seconds of a masked pass, forward and backward, without its dropped channels, beside one that computes all.

    OMP_NUM_THREADS=1 python tests/benchmark_masks.py --ngf 64 --batch 8

Both take turns on the same network, images and mask, with gradients of weights and mask. Ratios are medians
over the turns; below 1 leaving channels out is faster. The masks keep a share of the channels of each group.
"""

from __future__ import annotations

import argparse
import statistics
import time
from unittest import mock

import torch
from torch import nn

from lightning_gancompress.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator
from lightning_gancompress.pruning import ChannelMasks, convolution, find_groups

KINDS = ("unet", "resnet", "patch")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--ngf", type=int, default=64, help="also the discriminator's ndf")
    parser.add_argument("--size", type=int, default=128, help="pixels per side: a power of two from 32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.7, 0.5, 0.22])
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args(words)


def made(kind: str, options: argparse.Namespace) -> tuple[nn.Module, torch.Tensor]:
    """A network and its images."""
    network = {
        "unet": lambda: UnetGenerator(ngf=options.ngf, n_downs=options.size.bit_length() - 1),
        "resnet": lambda: ResnetGenerator(ngf=options.ngf),
        "patch": lambda: PatchDiscriminator(ndf=options.ngf),
    }[kind]()
    images = torch.rand(options.batch, 6 if kind == "patch" else 3, options.size, options.size)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    return network.to(options.device, memory_format=layout), images.to(options.device, memory_format=layout)


def seconds(network: nn.Module, images: torch.Tensor, masks: ChannelMasks, mask: torch.Tensor) -> float:
    """Processor seconds of a pass, or seconds of the clock on a GPU."""
    cuda = images.device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    began = clock()
    masks.set(mask.clone().requires_grad_())
    network(images).float().square().mean().backward()
    masks.freeze()
    if cuda:
        torch.cuda.synchronize()
    return clock() - began


def measured(kind: str, share: float, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a pass that computes all channels, and the ratio of one that leaves channels out to it."""
    torch.manual_seed(0)
    network, images = made(kind, options)
    groups = find_groups(network.cpu(), [images[:1].cpu()])
    network.to(options.device)
    masks = ChannelMasks(groups).to(options.device)
    masks.attach(network)
    mask = torch.cat([(torch.arange(n) < max(1, round(share * n))).float() for n in groups.sizes])
    turns = []
    for _ in range(options.rounds + 1):  # the first warms up
        with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
            with mock.patch.object(convolution, "WORTH", 0.0):
                whole = seconds(network, images, masks, mask.to(options.device))
            turns.append((whole, seconds(network, images, masks, mask.to(options.device))))
    ratios = [own / whole for whole, own in turns[1:]]
    return statistics.median(whole for whole, _ in turns[1:]), statistics.median(ratios)


def main(words: list[str] | None = None) -> None:
    options = arguments(words)
    print("network  share of channels  all computed  ratio")
    for kind in options.networks:
        for share in options.shares:
            whole, ratio = measured(kind, share, options)
            print(f"{kind:7}  {share:17.2f}  {whole:10.3f} s  {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
