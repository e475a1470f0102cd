"""`configs/lfw.py` with an iResNet: trained, or official weights on LFW's 6,000 pairs.

python train.py --config configs/lfw_iresnet.py --workdir runs/lfw_ir18
python eval.py --model runs/lfw_ir18

The argument is one of ir18, ir34, ir50, ir101, whose details are CVLFace's, or
insightface_ir18 and so on. The papers' 100 and 101 layers are the same network. With
LFW imported as configs/lfw_mobilefacenet.py says, and official WEIGHTS that were
trained on RGB images,

kprpe-jax eval --model iresnet_insightface_ir101:WEIGHTS --config lfw \\
    --config.evals.lfw.type=official_pairs --config.evals.lfw.dataset=lfw \\
    --evaluators lfw
"""

from ml_collections import ConfigDict

from kprpe_jax.backbones.iresnet import PRESETS, VARIANTS, WIDTHS
from kprpe_jax.configs import lfw
from kprpe_jax.configs.base import check_argument

NETWORKS = {
    (preset if variant == "cvlface" else f"{variant}_{preset}"): (preset, variant)
    for variant in VARIANTS
    for preset in PRESETS
}


def get_config(network: str = "ir18") -> ConfigDict:
    """Configure a run with one of NETWORKS."""
    check_argument(network, NETWORKS)
    preset, variant = NETWORKS[network]
    config = lfw.get_config()
    config.backbone = "iresnet"
    del config.model
    config.model = ConfigDict({**PRESETS[preset], **VARIANTS[variant]})
    config.model.widths = WIDTHS
    config.model.squeeze_excite = False  # True: the official ir_se, of CVLFace's
    config.model.image_size = (112, 112)
    config.model.output_dim = 512
    config.model.dtype = "float32"
    return config
