"""Two-image transformers on LFW's people over a frozen MobileFaceNet.

The first 2,166 people train, the others are verified. ARCHIVE holds aligned 112 x 112
photos as Name/Name_0001.jpg, WEIGHTS those of MobileFaceNet:

kprpe-jax import tar --source ARCHIVE --name lfw
kprpe-jax embed --model mobilefacenet:WEIGHTS --dataset lfw --name lfw_patches \\
    --patches --min-images 2
python train.py --config configs/pair_matching.py --workdir runs/h2l
python train.py --config configs/pair_matching.py:h2 --workdir runs/h2
python train.py --config configs/pair_matching.py:v --workdir runs/v  # from the photos
python eval.py --model runs/h2l
"""

from ml_collections import ConfigDict

from kprpe_jax.configs.base import check_argument, make_base

NUM_TRAINED = 2166  # of 4,333 people
NETWORKS = {  # Face-ViT, Table 4.1
    "v": "one_image",
    "h1": "one_image",
    "h2": "same_or_not",
    "h2l": "two_linear",
}


def get_config(network: str = "h2l") -> ConfigDict:
    """Configure a run of v, h1, h2 or h2l."""
    check_argument(network, NETWORKS)
    config = make_base("pair_matching", steps=240)

    config.data.name = "lfw_patches"
    config.data.input = "patches"  # or images: through a backbone or learned patches
    config.data.train_split = "clean"  # features have no other; the people differ
    config.data.in_memory = True
    config.data.train_identities = (0, NUM_TRAINED)  # (first, last); () = all
    config.data.num_classes = NUM_TRAINED
    config.data.image_shape = (112, 112, 3)  # images
    config.data.batch_size = 64  # pairs
    config.data.num_threads = 1

    config.backbone = "mobilefacenet"  # images, unless patches are learned
    config.backbone_weights = ""  # its file; "" = random ones, which are trained
    config.train_backbone = False

    config.augmentation = ConfigDict()  # images
    config.augmentation.preset = "none"
    config.augmentation.changes = ConfigDict()

    config.model = ConfigDict()
    config.model.variant = NETWORKS[network]
    config.model.depth = 1
    config.model.num_heads = 2
    config.model.head_dim = 64
    config.model.mlp_dim = 256
    config.model.width = 512
    config.model.num_patches = 42  # 7 x 6
    config.model.attention = "norm_residual"
    config.model.logit_scale = "head"
    config.model.dropout_rate = 0.1
    config.model.output_dim = 256  # h2l
    config.model.head_norm = "layer"  # h2l
    config.model.shared_head = False  # h2l
    config.model.window_size = 0  # pixels of learned patches; 0 = patches are given
    config.model.window_stride = 0
    config.model.window_padding = 0
    config.model.dtype = "float32"

    config.loss = ConfigDict()
    config.loss.margin = 0.5  # ArcFace; h1 and h2l
    config.loss.scale = 30.0
    config.loss.angle = "linear"  # clipped, training may end before it began

    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup = 20.0
    config.optimizer.clip_norm = 1.0

    config.checkpoint.every_steps = 120
    config.checkpoint.keep_last = 1

    config.log.every_steps = 20

    config.evals = ConfigDict()
    config.evals.every_steps = 120
    config.evals.in_training = ("pairs",)
    config.evals.batch_size = 50  # pairs
    pairs = config.evals.pairs = ConfigDict(dict(type="matched_pairs"))
    pairs.dataset = ""  # "" = data.name
    pairs.split = "clean"
    pairs.identities = (NUM_TRAINED, 2 * NUM_TRAINED + 1)
    pairs.count = 1000
    if network == "v":
        config.data.name = "lfw"
        learn_patches(config)
    return config


def read_images(config: ConfigDict) -> None:
    """Read images instead of patches."""
    config.data.input = "images"
    config.data.in_memory = False
    config.data.train_split = config.evals.pairs.split = "train"  # an import's only one


def learn_patches(config: ConfigDict) -> None:
    """No CNN: 7 x 7 learned patches of 112 x 112 images, a network as small as them."""
    config.steps = 600
    config.data.batch_size = 32
    read_images(config)
    config.augmentation.changes = ConfigDict(dict(spatial=dict(flip_prob=0.5)))
    config.model.window_size = config.model.window_stride = 16
    config.model.num_patches = 49
    config.model.width = 64
    config.model.depth = 4
    config.model.output_dim = 128
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 100.0
    config.checkpoint.every_steps = config.evals.every_steps = 300
