import torch
from torch import nn

from lightning_gancompress.export import peak_activation_bytes


def test_peak_is_that_of_the_two_maps_around_the_widest_layer():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).eval()
    # conv to relu: 8 + 8 maps; relu to conv: 8 + 4
    assert peak_activation_bytes(net, torch.zeros(2, 3, 16, 16)) == 2 * 16 * 16 * 16 * 4


def test_what_a_skip_keeps_counts_and_what_is_in_place_does_not():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = nn.Conv2d(3, 8, 1)
            self.narrow = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            y = self.wide(x)
            z = self.narrow(self.narrow(y).repeat(1, 4, 1, 1).relu_())
            return torch.cat([y, z], dim=1)

    # at the end: y (8), z (2) and both side by side (10)
    assert peak_activation_bytes(Skip().eval(), torch.zeros(1, 3, 16, 16)) == 20 * 16 * 16 * 4
