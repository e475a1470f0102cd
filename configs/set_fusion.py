"""CAFace on the features of LFW's people, half of them to train, others to evaluate.

ARCHIVE holds aligned 112 x 112 photos as Name/Name_0001.jpg, WEIGHTS those of
MobileFaceNet. The two halves share no person:

kprpe-jax import tar --source ARCHIVE --name lfw
kprpe-jax embed --model mobilefacenet:WEIGHTS --dataset lfw --name lfw_train --style \\
    --mirror sum --identities 0:2166 --min-images 2 --max-images 40 --degraded 4
kprpe-jax embed --model mobilefacenet:WEIGHTS --dataset lfw --name lfw_probes --style \\
    --mirror sum --identities 2166:4333 --min-images 16 --max-images 40 --degraded 6
python train.py --config configs/set_fusion.py --workdir runs/set_fusion
python train.py --config configs/set_fusion.py:cfan --workdir runs/cfan
"""

from ml_collections import ConfigDict

from kprpe_jax.configs.base import check_argument, make_base
from kprpe_jax.evaluation.feature_rows import DEGRADATION
from kprpe_jax.fusion.weighted import METHODS


def get_config(method: str = "cluster_aggregate") -> ConfigDict:
    """Configure a run of CAFace, ProxyFusion, or one of `fusion.weighted.METHODS`."""
    check_argument(method, ("cluster_aggregate", "proxy_fusion", *METHODS))
    config = make_base("set_fusion", steps=400)

    config.data.features = "lfw_train"
    config.data.input = "features"  # or pixels: from images, through the backbone
    config.data.in_memory = True
    config.data.name = ""  # pixels: the data set of images
    config.data.train_identities = ()  # (first, last); () = all
    config.data.images_per_set = 16  # the largest N; sampled from 2 on
    # A step's sets are padded to one of these; a large run may have (4, 8, 16), each of
    # which is compiled.
    config.data.padded_sizes = (16,)
    config.data.batch_size = 16 * 2 * 16  # images: 16 people, two sets, 16 in each
    config.data.num_threads = 1

    config.backbone = "mobilefacenet"  # pixels: a published network
    config.backbone_weights = ""  # its file, or one that `export` wrote
    config.backbone_style_maps = ()  # () = the network's own
    config.train_backbone = False

    config.augmentation = ConfigDict()  # pixels; features are degraded already
    config.augmentation.preset = "none"
    config.augmentation.changes = ConfigDict(DEGRADATION)

    config.fusion = ConfigDict()
    config.fusion.method = method
    config.fusion.variant = "paper"  # or official: see `fusion.cluster_aggregate`
    config.fusion.num_clusters = 4
    config.fusion.style_dim = 64
    config.fusion.norm_dim = 64
    config.fusion.depth = 2
    config.fusion.num_heads = 8
    config.fusion.mixer_depth = 2
    config.fusion.per_channel = True
    config.fusion.drop_path_rate = 0.1

    config.loss = ConfigDict()
    config.loss.centers = "means"  # or a file with the classifier's weights
    config.loss.permutation_weight = 1.0

    # The paper's, with the drops after the same shares of a shorter run.
    config.optimizer.schedule = "step"
    config.optimizer.boundaries = (240, 360)
    config.optimizer.weight_decay = 5e-4

    config.checkpoint.keep_last = 1

    config.evals = ConfigDict()
    config.evals.every_steps = 100
    config.evals.in_training = ("probes",)
    config.evals.batch_size = 64  # images through the backbone at once
    probes = config.evals.probes = ConfigDict(dict(type="growing_probes"))
    probes.features = "lfw_probes"
    probes.split = "train"  # of data.name, where the backbone is trained
    probes.identities = ()
    probes.copies = 6  # where the backbone is trained
    probes.sizes = (16,)
    probes.repeats = 8  # probes of each person
    probes.batch_images = 256  # N'
    probes.entropy_sets = 64  # of them, for the entropy of the assignment
    return config
