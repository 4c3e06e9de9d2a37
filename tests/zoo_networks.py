"""Networks of the zoo: public ones that nobody wrote for this project, narrow, and as deep as they are.

`zoo_requirements.txt` has their packages. None loads weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

PIX2PIX, HD, YAUNET = "upit.models.junyanz:", "pix2pixhd.models.networks:", "yaunet:"
UNETS = "dynamic_network_architectures.architectures.unet:"
SWIN = dict(img_size=32, embed_dim=24, depths=[2] * 4, num_heads=[4] * 4, window_size=8)
SWIN_UP = dict(**SWIN, upscale=2, upsampler="pixelshuffle")
BLOCKS = dict(num_blocks=[2, 2, 2, 2], num_refinement_blocks=2)
STEPS = dict(middle_blk_num=2, enc_blk_nums=[1, 1, 2, 4], dec_blk_nums=[1, 1, 1, 1])
LEVELS = dict(
    channels=(8, 16, 32), attention_levels=(False, False, True), num_res_blocks=2, norm_num_groups=4
)
FEATURES = (8, 8, 16, 32, 32, 8)
ENCODERS = (
    *("resnet18", "resnext50_32x4d", "se_resnet50", "densenet121", "inceptionv4", "inceptionresnetv2"),
    *("xception", "efficientnet-b0", "mobilenet_v2", "mobileone_s0", "vgg11_bn", "dpn68", "mit_b0"),
    *("timm-skresnet18", "timm-resnest14d", "timm-regnetx_002", "timm-gernet_s", "tu-convnext_atto"),
    *(
        "tu-mobilenetv3_small_100",
        "tu-ghostnet_100",
        "tu-hrnet_w18_small",
        "tu-cspresnet50",
        "tu-eca_nfnet_l0",
    ),
    *("tu-repvgg_a0", "tu-mobilevit_xs", "tu-edgenext_xx_small", "tu-res2net50_14w_8s"),
)


class Entry(NamedTuple):
    """A network of the zoo.

    Attributes:
        name: Its package and its class, and what is special about it.
        inputs: Shapes of its example images, "3x64 + 1x64", or "t" for a time step.
        build: How to build it.
    """

    name: str
    inputs: str
    build: Callable[[], nn.Module]

    def images(self) -> list[Tensor]:
        """Example inputs, images in [-1, 1]."""
        torch.manual_seed(0)
        return [_image(shape) for shape in self.inputs.split(" + ")]


def _image(shape: str) -> Tensor:
    if shape == "t":
        return torch.tensor([10])
    if shape.startswith("v"):
        return torch.rand(1, int(shape[1:])) * 2 - 1
    channels, size = map(int, shape.split("x"))
    return torch.rand(1, channels, size, size) * 2 - 1


def get(path: str) -> Any:
    """What `package.module:name` stands for."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


def net(inputs: str, path: str, *arguments: Any, package: str = "", label: str = "", **options: Any) -> Entry:
    """A class, or a function that makes a network, by its path, and what to call it with."""
    name = " ".join(filter(None, [package or path.split(".")[0].split(":")[0], path.split(":")[1], label]))
    return Entry(name, inputs, lambda: get(path)(*arguments, **options))


def smp(kind: str, encoder: str, inputs: str = "3x64", **options: Any) -> Entry:
    path = f"segmentation_models_pytorch:{kind}"
    label = " ".join([encoder, *(str(value) for value in options.values() if isinstance(value, str))])
    return net(inputs, path, encoder, package="smp", label=label, encoder_weights=None, classes=3, **options)


def vision(name: str) -> Entry:
    path = f"torchvision.models.segmentation:{name}"
    return net("3x64", path, weights=None, weights_backbone=None, num_classes=3)


def pixseg(name: str, **options: Any) -> Entry:
    return net("3x64", f"pixseg.models:{name}", num_classes=21, weights=None, **options)


def nnunet(kind: str, **options: Any) -> Entry:
    sizes = dict(input_channels=3, num_classes=3, n_stages=5, features_per_stage=(8, 16, 32, 64, 64))
    steps = dict(kernel_sizes=3, strides=(1, 2, 2, 2, 2), n_conv_per_stage_decoder=2, conv_op=nn.Conv2d)
    norm = dict(
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, conv_bias=True
    )
    return net("3x64", UNETS + kind, package="nnunet", **sizes, **steps, **norm, **options)


def monai(kind: str, inputs: str = "3x64", label: str = "", **options: Any) -> Entry:
    channels = int(inputs.split("x")[0])
    options = {"spatial_dims": 2, "in_channels": channels, **options}
    return net(inputs, f"monai.networks.nets:{kind}", label=label, **options)


def spandrel(inputs: str, path: str, package: str = "spandrel", **options: Any) -> Entry:
    folder, rest = path.split(".")
    return net(inputs, f"{package}.architectures.{folder}.__arch.{rest}", package=package, **options)


def extra(inputs: str, path: str, **options: Any) -> Entry:
    return spandrel(inputs, path, "spandrel_extra_arches", **options)


def super_image(kind: str, **options: Any) -> Entry:
    model, settings = f"super_image:{kind}Model", f"super_image:{kind}Config"
    return Entry(f"super_image {kind}", "3x32", lambda: get(model)(get(settings)(scale=2, **options)))


def basicsr(inputs: str, path: str, *arguments: Any, **options: Any) -> Entry:
    return net(inputs, f"basicsr.archs.{path}", *arguments, **options)


def resselt(inputs: str, path: str, **options: Any) -> Entry:
    return net(inputs, f"resselt.archs.{path}", **options)


NETWORKS = [
    # -- generators of image-to-image GANs and their discriminators
    net("3x64", "vintagify.generator:ResnetGenerator", ngf=16),
    net("3x64", "vintagify.discriminator:Discriminator", ndf=16),
    net("3x64", PIX2PIX + "define_G", 3, 3, 16, "resnet_9blocks", "instance"),
    net("3x128", PIX2PIX + "UnetGenerator", 3, 3, 7, 8),
    net("6x64", PIX2PIX + "NLayerDiscriminator", 6, 8),
    net("6x64", PIX2PIX + "PixelDiscriminator", 6, 8),
    net("3x64", HD + "GlobalGenerator", 3, 3, 8),
    net("3x64", HD + "LocalEnhancer", 3, 3, 8),
    net("6x64", HD + "MultiscaleDiscriminator", 6, 8),
    net("3x64 + v4", "modulaic.models.generator:ConditionalUNetGenerator", 3, 3, 4, base_channels=8),
    net("3x64", "modulaic.models.discriminator:PatchDiscriminator", 3, 8),
    net("3x64", "torchgan.models:AutoEncodingDiscriminator", 64, 3, step_channels=8, energy=False),
    monai(
        "SPADENet",
        "4x64",
        in_channels=3,
        out_channels=3,
        label_nc=4,
        input_shape=(64, 64),
        channels=[16, 16, 32],
        is_vae=False,
    ),
    monai("PatchDiscriminator", channels=8),
    monai("MultiScalePatchDiscriminator", num_d=2, num_layers_d=2, channels=8, minimum_size_im=64),
    net("3x64", "deepinv.models:PatchGANDiscriminator", ndf=8),
    net("3x64", "deepinv.models:ESRGANDiscriminator", img_size=(3, 64, 64), filters=(8, 16, 32, 32)),
    basicsr("3x64", "discriminator_arch:UNetDiscriminatorSN", 3, 8),
    basicsr("3x128", "discriminator_arch:VGGStyleDiscriminator", 3, 8),
    # -- segmentation: for the U-Net one encoder of every family, and every decoder
    *(smp("Unet", encoder, decoder_channels=(32, 24, 16, 12, 8)) for encoder in ENCODERS),
    smp("Unet", "resnet18", decoder_attention_type="scse"),
    smp("UnetPlusPlus", "resnet18"),
    smp("UnetPlusPlus", "efficientnet-b0"),
    smp("MAnet", "resnet18"),
    smp("Linknet", "resnet18"),
    smp("Linknet", "mobilenet_v2"),
    smp("FPN", "resnext50_32x4d"),
    smp("FPN", "densenet121", decoder_merge_policy="cat"),
    smp("PSPNet", "vgg11_bn"),
    smp("PSPNet", "resnet18"),
    smp("PAN", "resnet18", "3x128"),
    smp("DeepLabV3", "resnet18"),
    smp("DeepLabV3Plus", "mobilenet_v2"),
    smp("UPerNet", "resnet18"),
    smp("Segformer", "resnet18"),
    smp("Segformer", "mit_b0"),
    smp("DPT", "tu-vit_tiny_patch16_224", dynamic_img_size=True),
    vision("fcn_resnet50"),
    vision("deeplabv3_resnet50"),
    vision("deeplabv3_mobilenet_v3_large"),
    vision("lraspp_mobilenet_v3_large"),
    pixseg("bisenet_resnet18", weights_backbone=None),
    pixseg("enet_original"),
    pixseg("pspnet_resnet50", weights_backbone=None),
    pixseg("sfnet_resnet18", weights_backbone=None),
    pixseg("upernet_resnet18", weights_backbone=None),
    net("3x64", "mit_semseg.models.hrnet:HRNetV2", 3),
    # -- U-Nets
    net("3x64", "ternausnet.models:UNet11"),
    net("3x64", "ternausnet.models:UNet16", num_filters=8, is_deconv=True),
    net("3x64", "unet_pytorch.model:UNet", 3, 3),
    net(
        "3x64",
        "unet:UNet2D",
        3,
        3,
        out_channels_first_layer=8,
        normalization="batch",
        padding=1,
        residual=True,
    ),
    net("3x64", "x_unet:XUnet", dim=16, nested_unet_depths=(3, 2, 1, 0), use_convnext=True),
    net("3x64", "yaunet:UNet", 3, 3, None, False, (8, 16, 32), (2, 2, 2), 32, 2, (32, 16, 8), (2, 2, 2)),
    net("3x64", "backbones_unet.model.unet:Unet", "resnet18", pretrained=False, in_channels=3, num_classes=3),
    net("3x64", "kornia.feature.disk._unets:Unet", 3, up=[16, 16, 16, 4], down=[8, 16, 16, 16, 16]),
    nnunet("PlainConvUNet", n_conv_per_stage=2, deep_supervision=True),
    nnunet("ResidualEncoderUNet", n_blocks_per_stage=(1, 2, 3, 3, 3)),
    net("3x64", "deepinv.models:UNet", 3, 3, channels_per_scale=[8, 16, 32, 64]),
    # -- medical images
    monai("UNet", out_channels=3, channels=(8, 16, 32, 64), strides=(2, 2, 2), num_res_units=2),
    monai("AttentionUnet", out_channels=3, channels=(8, 16, 32, 64), strides=(2, 2, 2)),
    monai("AutoEncoder", out_channels=3, channels=(8, 16, 32, 64), strides=(2,) * 4, inter_channels=[32, 32]),
    net("3x64", "monai.networks.nets:VarAutoEncoder", 2, (3, 64, 64), 3, 16, (8, 16, 32), (2, 2, 2)),
    monai("SegResNet", init_filters=8, out_channels=3),
    monai("SegResNetVAE", input_image_size=(64, 64), init_filters=8),
    monai("SegResNetDS", init_filters=8, dsdepth=2),
    *(
        monai(
            *("DynUNet", "3x64", "residual" * residual),
            **dict(out_channels=3, filters=[8, 16, 32, 32], res_block=residual),
            **dict(kernel_size=[3] * 4, strides=[1, 2, 2, 2], upsample_kernel_size=[2] * 3),
        )
        for residual in (False, True)
    ),
    monai("BasicUNet", out_channels=3, features=FEATURES),
    monai("BasicUNetPlusPlus", out_channels=3, features=FEATURES, deep_supervision=True),
    monai("FlexibleUNet", out_channels=3, backbone="resnet18", decoder_channels=(32, 24, 16, 12, 8)),
    monai("HighResNet", out_channels=3),
    net("3x256", "monai.networks.nets:HoverNet", "fast", out_classes=3),
    monai("VNet", "4x64", out_channels=3, dropout_dim=2),
    monai("AHNet", out_channels=3, layers=(2, 2, 2, 2), psp_block_num=3),
    monai("MedNeXt", out_channels=3, init_filters=8),
    monai("RegUNet", num_channel_initial=8, depth=3, concat_skip=True),
    monai("SwinUNETR", out_channels=3, feature_size=12),
    monai("UNETR", out_channels=3, img_size=64, hidden_size=48, mlp_dim=96, num_heads=4),
    # -- autoencoders and diffusion
    monai("AutoencoderKL", out_channels=3, **LEVELS),
    monai("VQVAE", out_channels=3, channels=(16, 16, 32), num_res_channels=(16, 16, 32)),
    monai("DiffusionModelUNet", "3x64 + t", out_channels=3, **LEVELS),
    net("3x64 + t", "diffusers:UNet2DModel", 64, block_out_channels=(8, 16, 32, 32), norm_num_groups=4),
    net(
        *("3x64", "diffusers:AutoencoderKL", 3, 3, ("DownEncoderBlock2D",) * 3, ("UpDecoderBlock2D",) * 3),
        **dict(block_out_channels=(8, 16, 32), norm_num_groups=4),
    ),
    net("3x64", "diffusers:VQModel", block_out_channels=(16,), norm_num_groups=4, layers_per_block=2),
    net(
        "3x64",
        "diffusers:AutoencoderTiny",
        encoder_block_out_channels=(16,) * 4,
        decoder_block_out_channels=(16,) * 4,
    ),
    # -- convolutional restoration: super-resolution, denoising, deblurring, inpainting, faces
    spandrel("3x32", "ESRGAN.RRDB:RRDBNet", num_filters=16, num_blocks=8),
    spandrel("3x32", "ESRGAN.RRDB:RRDBNet", label="plus", num_filters=16, num_blocks=4, plus=True),
    spandrel("3x32", "Compact.SRVGG:SRVGGNetCompact", num_feat=16),
    spandrel("3x32", "SwiftSRGAN.SwiftSRGAN:Generator", label="SwiftSRGAN", num_channels=16),
    spandrel("3x32", "SPAN.span:SPAN", num_in_ch=3, num_out_ch=3, feature_channels=16),
    spandrel("3x32", "PLKSR.PLKSR:PLKSR", dim=16, n_blocks=12),
    spandrel("3x32", "PLKSR.RealPLKSR:RealPLKSR", dim=16, n_blocks=12, dysample=True),
    spandrel("3x64", "RealCUGAN.upcunet_v3:UpCunet2x"),
    spandrel("3x64", "RealCUGAN.upcunet_v3:UpCunet4x"),
    spandrel("3x64 + 1x64", "LaMa.LaMa:LaMa", in_nc=4),
    spandrel(
        "3x64",
        "GFPGAN.gfpganv1_clean_arch:GFPGANv1Clean",
        out_size=64,
        num_style_feat=32,
        narrow=0.125,
        num_mlp=4,
    ),
    spandrel("3x32", "RCAN.rcan_arch:RCAN", n_resgroups=4, n_resblocks=6, n_feats=16),
    spandrel("1x64", "DnCNN.network_dncnn:DnCNN", nc=16),
    spandrel("2x64", "DnCNN.network_dncnn:DnCNN", label="FDnCNN", in_nc=2, nc=16, mode="FDnCNN"),
    spandrel("1x64", "DRUNet.network_unet:DRUNet", nc=[8, 16, 32, 64]),
    spandrel("3x64", "FBCNN.FBCNN:FBCNN", nc=[8, 16, 32, 512]),
    spandrel("3x64", "NAFNet.NAFNet_arch:NAFNet", width=8, **STEPS),
    spandrel("3x64", "MixDehazeNet.MixDehazeNet:MixDehazeNet"),
    spandrel(
        "3x32", "MMRealSR.mmrealsr_arch:MMRRDBNet_test", num_in_ch=3, num_out_ch=3, num_feat=16, num_block=4
    ),
    spandrel("3x32", "SAFMN.safmn:SAFMN", dim=16),
    spandrel("3x32", "SeemoRe.seemore_arch:SeemoRe", embedding_dim=16),
    spandrel("3x32", "MoSR.mosr_arch:MoSR", dim=16, n_block=8),
    spandrel("3x32", "MoESR.MoESR:MoESR", dim=16, n_blocks=3),
    extra("3x64", "MPRNet.MPRNet:MPRNet", n_feat=16, scale_unetfeats=8, scale_orsnetfeats=8, num_cab=4),
    extra("3x64", "MIRNet2.mirnet_v2_arch:MIRNet_v2", n_feat=16),
    extra("3x64", "M3SNet.M3SNet:M3SNet", width=8, **STEPS),
    extra("3x64", "FeMaSR.femasr:FeMaSRNet", codebook_params=[[32, 64, 32]], gt_resolution=64),
    net("3x64", "deepinv.models:DnCNN", nf=16, pretrained=None),
    net("3x32", "deepinv.models:SRResNet", feats=16),
    net("3x32", "torchsr.models.edsr:EDSR", 8, 16, 2, 0.1),
    net("3x32", "torchsr.models.rdn:RDN", 2, 16, 4, 4, 8),
    net("3x32", "torchsr.models.carn:CARN", 2),
    net("3x32", "torchsr.models.carn:CARNM", 2),
    net("3x32", "torchsr.models.ninasr:NinaSR", 10, 16, 2),
    net("3x32", "torch_enhance.models:SRResNet", 2, num_blocks=4),
    super_image("A2n", nf=16, unf=8, nb=6),
    super_image("Awsrn", n_feats=16, block_feats=32),
    super_image("Drln"),
    super_image("Han", n_resblocks=2, n_feats=16),
    super_image("Msrn", n_feats=16),
    super_image("Pan", nf=16, unf=8),
    basicsr("3x64", "ridnet_arch:RIDNet", 3, 16, 3),
    basicsr("3x32", "ecbsr_arch:ECBSR", 3, 3, 4, 16, True, "prelu", 2),
    basicsr("3x32", "edsr_arch:EDSR", 3, 3, 16),
    basicsr("3x32", "srresnet_arch:MSRResNet", num_feat=16),
    basicsr("3x128", "hifacegan_arch:HiFaceGAN", num_feat=8, crop_size=128, is_train=False),
    resselt("3x32", "spanplus.arch:SpanPlus", feature_channels=16, upsampler="ps"),
    resselt("3x32", "rtmosr.arch:RTMoSR", dim=16),
    resselt("3x64", "gaterv2.arch:GateRV2", dim=16, num_latent=4),
    resselt("3x64", "gaterv3.arch:GateRV3", dim=16, num_latent=4),
    # -- restoration with attention between places or channels
    spandrel("3x32", "OmniSR.OmniSR:OmniSR", num_feat=16, res_num=2),
    spandrel(
        "3x64",
        "RestoreFormer.restoreformer_arch:RestoreFormer",
        n_embed=64,
        embed_dim=32,
        z_channels=32,
        ch=32,
        resolution=64,
        ch_mult=(1, 1, 2),
    ),
    spandrel("3x64", "SCUNet.SCUNet:SCUNet", dim=64, config=[2] * 7),
    spandrel("3x64", "KBNet.kbnet_l:KBNet_l", dim=24, **BLOCKS),
    spandrel("3x64", "FFTformer.fftformer_arch:FFTformer", dim=8, num_blocks=[2, 2, 4]),
    spandrel("3x128", "Uformer.Uformer:Uformer", img_size=128, embed_dim=16),
    spandrel("3x64", "RetinexFormer.retinexformer_arch:RetinexFormer", n_feat=16, stage=1),
    spandrel("3x64", "HVICIDNet.cidnet:CIDNet", channels=[12, 12, 24, 48]),
    spandrel("3x32", "SwinIR.SwinIR:SwinIR", **SWIN_UP),
    spandrel("3x32", "Swin2SR.Swin2SR:Swin2SR", **SWIN_UP),
    spandrel("3x32", "HAT.HAT:HAT", squeeze_factor=6, **SWIN_UP),
    spandrel("3x32", "DRCT.drct_arch:DRCT", **SWIN_UP),
    spandrel("3x32", "ATD.atd_arch:ATD", **SWIN_UP),
    spandrel(
        "3x32",
        "GRL.grl:GRL",
        img_size=32,
        embed_dim=24,
        upscale=2,
        upsampler="pixelshuffle",
        depths=[2] * 4,
        num_heads_window=[2] * 4,
        num_heads_stripe=[2] * 4,
    ),
    spandrel("3x32", "DAT.DAT:DAT", img_size=32, embed_dim=24, split_size=[8, 8]),
    spandrel("3x32", "RGT.rgt:RGT", img_size=32, embed_dim=24),
    spandrel("3x32", "CRAFT.CRAFT:CRAFT", embed_dim=24),
    spandrel("3x32", "DCTLSA.dctlsa:DCTLSA", nf=20),
    spandrel("3x32", "DITN.DITN_Real:DITN_Real", dim=20),
    spandrel("3x32", "FDAT.fdat:FDAT", embed_dim=24, mid_dim=16),
    spandrel("3x48", "IPT.ipt:IPT", n_feats=8, num_heads=4, num_layers=2, scale=[2]),
    extra("3x64", "Restormer.restormer_arch:Restormer", dim=8, **BLOCKS),
    extra("3x32", "SRFormer.SRFormer:SRFormer", **SWIN_UP),
    extra(
        "3x64",
        "DDColor.ddcolor:DDColor",
        encoder_name="convnext-t",
        input_size=(64, 64),
        num_queries=16,
        dec_layers=3,
    ),
    net("3x32", "deepinv.models:SwinIR", pretrained=None, **SWIN),
    resselt("3x32", "eimn.arch:eimn", embed_dims=16, num_stages=4),
    resselt("3x32", "lawfft.arch:LAWFFT", dim=20, mid_dim=16),
    resselt("3x64", "rha.arch:RHA", dim=16, res_blocks=2),
]
