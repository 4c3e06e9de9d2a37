"""The well-known data sets of image translation: where they are, and under which terms."""

from __future__ import annotations

from dataclasses import dataclass

_PIX2PIX = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets"
_CYCLEGAN = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets"
_IMAGENET = "photos from ImageNet: non-commercial research, by its terms of access"
_FLICKR = "photos from Flickr, each under the terms of its author: research"
_WIKIART = "paintings from Wikiart, photos from Flickr, each under the terms of its author: research"
_GOOGLE = "from Google Maps: its terms of service don't allow redistribution; research"
_FACADES = "CMP Facade Database (Tylecek and Sara 2013): research"


@dataclass(frozen=True)
class KnownSet:
    """A data set that can be fetched.

    Attributes:
        name: Its name.
        what: What it holds, in words.
        url: Address of its archive.
        licence: Its terms, as far as they are known.
        sha256: Digest of the archive; empty where none is published.
        folder: Name of the folder in the archive.
    """

    name: str
    what: str
    url: str
    licence: str
    sha256: str = ""
    folder: str = ""


def _paired(name: str, what: str, licence: str) -> KnownSet:
    return KnownSet(name, f"pairs: {what}", f"{_PIX2PIX}/{name}.tar.gz", licence, folder=name)


def _unpaired(name: str, what: str, licence: str, sha256: str, theirs: str = "") -> KnownSet:
    url = f"{_CYCLEGAN}/{theirs or name}.zip"
    return KnownSet(name, f"two domains: {what}", url, licence, sha256, theirs or name)


# digests of the two domains: those that TensorFlow Datasets has recorded of the same archives at their former
# address; nobody has published any of the pairs
SETS = {
    known.name: known
    for known in (
        _paired("facades", "400 photos of facades and their labels", _FACADES),
        _paired("maps", "1096 aerial photos and maps", _GOOGLE),
        _paired("edges2shoes", "50,000 edges and shoes", "UT Zappos50K (Yu and Grauman 2014): research"),
        _paired("edges2handbags", "137,000 edges and handbags", "photos from Amazon (iGAN): research"),
        _paired(
            "night2day",
            "photos of places by night and by day",
            "Transient Attributes (Laffont 2014): research",
        ),
        _unpaired(
            "horse2zebra",
            "1067 horses, 1334 zebras",
            _IMAGENET,
            "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1",
        ),
        _unpaired(
            "apple2orange",
            "996 apples, 1020 oranges",
            _IMAGENET,
            "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8",
        ),
        _unpaired(
            "summer2winter_yosemite",
            "1273 photos of Yosemite in summer, 854 in winter",
            _FLICKR,
            "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
        ),
        _unpaired(
            "monet2photo",
            "1074 paintings by Monet, 6853 photos",
            _WIKIART,
            "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04",
        ),
        _unpaired(
            "cezanne2photo",
            "584 paintings by Cezanne, 6853 photos",
            _WIKIART,
            "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff",
        ),
        _unpaired(
            "ukiyoe2photo",
            "1433 ukiyo-e prints, 6853 photos",
            _WIKIART,
            "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08",
        ),
        _unpaired(
            "vangogh2photo",
            "401 paintings by van Gogh, 6853 photos",
            _WIKIART,
            "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff",
        ),
        _unpaired(
            "iphone2dslr_flower",
            "1813 flowers by iPhones, 3316 by DSLRs",
            _FLICKR,
            "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113",
        ),
        _unpaired(
            "maps_unpaired",
            "aerial photos and maps",
            _GOOGLE,
            "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e",
            "maps",
        ),
        _unpaired(
            "facades_unpaired",
            "photos of facades and labels",
            _FACADES,
            "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0",
            "facades",
        ),
    )
}
# whose owners allow no copies
BY_HAND = {
    "cityscapes": "Cityscapes is given out by its owners alone: register at "
    "https://www.cityscapes-dataset.com, fetch gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip, "
    "unpack both into one folder, and train with --data.source_folder=gtFine "
    "--data.target_folder=leftImg8bit --data.source_suffix=_gtFine_color "
    "--data.target_suffix=_leftImg8bit, or give a mirror of yours as --url.",
}
