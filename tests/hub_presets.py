"""Tiny members of KerasHub's families of image backbones, as folders of presets."""

import functools

# What the folders' converters do to each channel.
SCALE, OFFSET = [1 / 58.4, 1 / 57.1, 1 / 57.4], [-2.1, -2.0, -1.8]
_TRANSFORMER = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8}
_MLP = {"intermediate_dim": 16, **_TRANSFORMER}


def save(folder, family, shape=(32, 32, 3)):
    """Writes a preset with random weights, and returns its backbone.

    Args:
        folder: path.
        family: str, of `FAMILIES`.
        shape: `(H, W, 3)` of its images.
    """
    import keras_hub

    backbone = FAMILIES[family](keras_hub.models, shape)
    for weight in backbone.weights:
        if weight.name == "position_ids":  # Zeros in a CLIP that was not loaded.
            weight.assign([range(weight.shape[1])])
        # Biases too, which would start at zero; but KerasHub computes interpolated positions.
        elif weight.trainable and not weight.name.startswith("interpolated"):
            weight.assign_add(_noise(weight.shape))
    backbone.save_to_preset(str(folder))
    keras_hub.layers.ImageConverter(scale=SCALE, offset=OFFSET).save_to_preset(str(folder))
    return backbone


def _noise(shape):
    import keras

    return keras.random.normal(shape, stddev=0.05, seed=1)


def _vit(models, shape):
    return models.ViTBackbone(image_shape=shape, patch_size=8, mlp_dim=16, **_TRANSFORMER)


def _deit(models, shape):
    return models.DeiTBackbone(image_shape=shape, patch_size=8, **_MLP)


def _clip(models, shape):
    text = models.CLIPTextEncoder(vocabulary_size=16, embedding_dim=8, **_MLP)
    vision = models.CLIPVisionEncoder(patch_size=8, image_shape=shape, **_MLP)
    return models.CLIPBackbone(vision, text, projection_dim=8)


def _siglip(models, shape):
    text = models.SigLIPTextEncoder(vocabulary_size=16, embedding_dim=8, **_MLP)
    vision = models.SigLIPVisionEncoder(patch_size=8, image_shape=shape, **_MLP)
    return models.SigLIPBackbone(vision, text)


def _dinov2(models, shape):
    return models.DINOV2Backbone(
        patch_size=8,
        image_shape=shape,
        position_embedding_shape=(48, 48, 3),
        num_register_tokens=2,
        **_MLP,
    )


def _dinov3(models, shape):
    return models.DINOV3Backbone(patch_size=8, image_shape=shape, num_register_tokens=2, **_MLP)


def _swin(models, shape):
    return models.SwinTransformerBackbone(
        image_shape=shape, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
    )


def _resnet(models, shape, *, pre=False):
    del shape
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        use_pre_activation=pre,
    )


def _mobilenet(models, shape):
    del shape
    return models.MobileNetBackbone(
        stackwise_expansion=[[40, 56]],
        stackwise_num_blocks=[2],
        stackwise_num_filters=[[16, 16]],
        stackwise_kernel_size=[[3, 3]],
        stackwise_num_strides=[[2, 1]],
        stackwise_se_ratio=[[None, None]],
        stackwise_activation=[["relu", "relu"]],
        stackwise_padding=[[1, 1]],
        output_num_filters=16,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=32,
    )


def _efficientnet(models, shape):
    del shape
    return models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 8],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "v1"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
    )


FAMILIES = {
    "vit": _vit,
    "deit": _deit,
    "clip": _clip,
    "siglip": _siglip,
    "dinov2": _dinov2,
    "dinov3": _dinov3,
    "swin": _swin,
    "resnet": _resnet,
    "resnet_v2": functools.partial(_resnet, pre=True),
    "mobilenet": _mobilenet,
    "efficientnet": _efficientnet,
}
