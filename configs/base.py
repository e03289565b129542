"""What every recipe is made of: its fields, their meaning and their defaults.

Fields of value None take the default of the class they configure. Override a field on the command
line with `--config.section.field=value`.
"""

import ml_collections
from ml_collections.config_dict import FieldReference, placeholder

__all__ = ["get_config"]


def get_config():
    """A fresh config, every field present; recipes change values, they add no fields.

    Returns:
        ml_collections.ConfigDict, locked.

    Example:
        >>> get_config().batch.examples_per_class
        4
    """
    config = ml_collections.ConfigDict(
        {
            "dataset": _dataset(),
            "batch": {
                "classes_per_batch": 32,  # P
                "examples_per_class": 4,  # K; a batch holds P * K examples
            },
            "hard_classes": _hard_classes(),
            "augment": _augment(),
            "model": {
                # a name of circle_tf.backbones, keras_hub:<preset, handle or folder>,
                # application:<name>, module:function of yours, or the path of a .keras file
                "backbone": "conv4",
                # average, max, generalized_mean, flatten, class_token; each net has its own default
                "pooling": placeholder(str),
                # of the backbone: a run or its model.keras, a file, a preset's folder; imagenet,
                # which Keras fetches for keras.applications; random; None: those of the preset or
                # the .keras file, else random
                "weights": placeholder(str),
                "partial_weights": False,  # load what fits of them, and warn of what does not
                "embedding_dim": 128,
                # below 1: share of the backbone's features that is 0 at each training step
                "dropout": 0.0,
            },
            "fine_tune": _fine_tune(),
            "loss": {
                # circle, class_circle, circle_head (class_circle in less memory, for many classes);
                # to compare with: keras_circle, cross_entropy, and those of
                # circle_tf.baselines: unified, contrastive, triplet_semihard, triplet_hard,
                # triplet_all, lifted_structure, n_pairs, multi_similarity (its base is margin, its
                # beta is gamma), norm_face, am_softmax, arc_face, proxy_anchor
                "name": "circle",
                # where the command line has a `name` of another kind than the recipe's: that loss's
                # own defaults, unless these are given there as well
                "margin": placeholder(float),
                "gamma": placeholder(float),
                # where they begin, if not as above: over the first `growth` of the updates gamma
                # then grows to its value by the same factor each, the margin in a straight line
                "gamma_start": placeholder(float),
                "margin_start": placeholder(float),
                "growth": 0.7,  # share of the updates
                "reduction": placeholder(str),
                # circle: above 0, so many embeddings of earlier batches are keys as well
                "memory_size": 0,
                "memory_start_step": 0,  # steps in which the memory fills before it is used
                # class_circle, norm_face, am_softmax, arc_face, cross_entropy: share of the label
                # that all classes have part in
                "label_smoothing": 0.0,
                # class_circle, norm_face, am_softmax, arc_face, proxy_anchor: how many weights each
                # class has, of which the nearest counts
                "sub_centers": 1,
                # circle: above 0, class-level Circle loss, on weights of the classes, is added,
                # times this
                "class_level_weight": 0.0,
                "class_level_margin": placeholder(float),  # None: 0.25
                "class_level_gamma": placeholder(float),  # None: 64
                # circle_head: room for the scores of the classes; above it, blocks of classes
                "max_bytes": placeholder(int),
                "sample_rate": placeholder(float),  # below 1: so many of the classes at each step
                "shards": "",  # replicas: each holds its share of the classes
                "product_dtype": placeholder(str),  # bfloat16: faster, to about 1 in 250
                "fused_update": False,  # class weights' gradient never whole; devices want shards
            },
            # above 0: hold the activations of so many images (of each replica) at a time, to train
            # on batches that memory has no room for; costs a second forward pass
            "cached_gradient_batch": 0,
            # k above 1: the mean gradient of k batches is applied at each k-th step; pairs do not
            # cross batches. Learning rates, warm-up and schedule count the updates.
            "gradient_accumulation": 1,
            "optimizer": _optimizer(),
            "steps": 1000,
            "epochs": 0,  # above 0: train that many passes over the classes instead of `steps`
            "eval_every": 100,  # steps from one evaluation, log line and progress bar to the next
            "eval_examples": 2000,  # at most so many unseen examples are evaluated while training
            "checkpoint_every": 200,  # steps
            "keep_checkpoints": 3,
            # the validation metric by which the best model is kept besides the last (--best):
            # val_mean_average_precision_at_r, val_recall_at_1, val_precision_at_1,
            # val_r_precision; empty: none
            "keep_best": "val_mean_average_precision_at_r",
            # auto: float32 on a CPU, on a GPU or TPU the half precision that is fast there (see
            # docs/runs.md for this and the next two); float32, mixed_bfloat16, mixed_float16
            "precision": "auto",
            # XLA. auto: on a GPU or TPU, unless the net cannot be compiled or deterministic is
            # True; on; off
            "jit": "auto",
            # single: one device; mirrored: the devices of one machine; multi_worker: several
            # processes or machines, told of each other by TF_CONFIG (trainers.launch sets it)
            "strategy": "single",
            # mirrored, multi_worker: how many devices of each machine; 0: all GPUs, or else one
            # CPU. More CPUs than one are logical, to try things out.
            "devices": 0,
            # The same weights, bit for bit, from the same command. auto: on a CPU, without jit=on;
            # True, False
            "deterministic": FieldReference("auto", field_type=object),  # a word or a bool
            "seed": 0,
        }
    )
    return config.lock()


def _dataset():
    return {
        # glyphs, digits, folder, table (CSV or Parquet), tfrecord; published: omniglot, market1501,
        # msmt17, cub200, cars196, sop, inshop; tfds:NAME, a set of TensorFlow Datasets
        "name": "glyphs",
        "path": "",  # all but glyphs and digits: where the examples are
        # folder, table, tfrecord, omniglot: other classes to test on; empty: hold some out
        "test_path": "",
        "train_split": "",  # tfds: names of splits, several joined by +; empty: docs/data.md
        "test_split": "",
        # of all these: share of the classes (omniglot: of the alphabets) to hold out
        "test_fraction": 0.2,
        "turned_classes": False,  # of all these: images turned by 90, 180, 270 degrees are more
        "columns": {  # table: what it calls its columns; all but the first two may be missing
            "path": "path",
            "label": "label",  # any text or number
            "split": "split",  # train, test, query, gallery
            "role": "role",  # query, gallery
            "camera": "camera",
            "box": "box",  # left, top, width, height in pixels
        },
        "verify": True,  # read every image once before training
        "image_feature": "image",  # tfrecord, tfds: names of the features that hold the image file,
        "label_feature": "label",  # the label, and (if there is one) the name of the class
        "class_feature": "class",
        "image_size": 32,  # side in pixels; with an image_width above 0 the height
        "image_width": 0,
        "channels": 1,  # 1 grey, 3 colour
        "seed": 0,  # glyphs: which characters train, and the look of each
        # above 0: of so many parts of the training classes hold the one of number `fold` out, to
        # choose settings by; the test classes are left alone (trainers.tune does it)
        "folds": 0,
        "fold": 0,
    }


def _hard_classes():
    """Batches of classes that look alike, for hard negatives."""
    return {
        # above 1: batches are made of groups of so many classes, one and some of those nearest to
        # it by their mean embeddings
        "group_size": 1,
        "neighbours": 8,  # how many nearest classes of each the others are drawn from
        # the nearest classes are found by the model after `start` steps (before: any classes make a
        # batch), and anew every so many steps; both multiples of eval_every
        "start": 0,
        "every": 500,
    }


def _augment():
    """Largest change of each kind, drawn for each image anew; 0 or empty is off."""
    return {
        "rotation": 0.0,  # degrees, either way
        "translation": 0.0,  # share of the side, either way
        "zoom": 0.0,  # share, in and out
        "shear": 0.0,  # share of the side
        "flip": "",  # horizontal, vertical, horizontal_and_vertical
        "brightness": 0.0,  # share of the range
        "contrast": 0.0,  # share
        "saturation": 0.0,  # 0..1; colour only
        "hue": 0.0,  # 0..1; colour only
        "bend": 0.0,  # share of the side, by which a smooth field moves pixels, either way
        "thicken": 0.0,  # pixels, by which dark lines grow on each side, or shrink
        "cutout": 0.0,  # share of the side covered by a rectangle
        "fill_value": 0.0,  # pixel value, 0..255, where an image is moved away or cut out
    }


def _fine_tune():
    """How the backbone is trained on; the defaults leave it to the optimizer as everything else."""
    return {
        "freeze_steps": 0,  # updates for which the whole backbone is frozen
        # what trains then: empty for all; the name of a block or layer, from which on; or a share
        # 0..1 of the blocks that stays frozen (1: the backbone never trains)
        "unfreeze_from": "",
        "learning_rate_factor": 1.0,  # of the backbone
        "layer_decay": 1.0,  # times this for each block further from the output
        "freeze_batch_normalization": False,  # of the backbone: weights and statistics stand still
        # the backbone's outputs are computed once and kept on disk, and the head alone trains; with
        # unfreeze_from=1 and without augmentation
        "cache_features": False,
        "cache_path": "",  # a folder that several runs share; empty: features/ in the workdir
    }


def _optimizer():
    return {
        "name": "adam",  # adam, adamw, sgd
        "learning_rate": 1e-3,  # after warm-up
        "warmup_steps": 0,  # from 0 up to learning_rate
        # cosine (down to final_learning_rate), constant, steps (/ 10 after 50, 70, 90 %)
        "schedule": "cosine",
        "final_learning_rate": 0.0,
        "weight_decay": 0.0,  # decoupled; 0 is none
        "momentum": 0.9,  # sgd only
        "clipnorm": 0.0,  # largest norm of the whole gradient; 0 is no limit
        # above 0: the averages of the weights over the updates, avg = m * avg + (1 - m) * weights,
        # are what is evaluated and kept, and the weights themselves train on; 0.999, say
        "ema_momentum": 0.0,
        "class_rate_factor": 1.0,  # of the class weights' learning rate and weight decay
    }
