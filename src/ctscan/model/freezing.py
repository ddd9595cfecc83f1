"""Cut a network into a trunk that stays frozen and a tail that is trained."""

from ctscan.core.errors import UserError

import keras


def partition(base: keras.Model, depth: int) -> tuple[keras.Model, list[keras.KerasTensor]]:
    """The frozen trunk of `base` and the frontier: its tensors that the last `depth` layers read.

    A cut inside a residual block is crossed by several tensors (the branch and the shortcut); all of them belong to
    the frontier, in the order of the operations that read them. With `depth` 0 the frontier is the network's output,
    with all layers its input.

    Returns:
        The trunk, from the network's input to the list of frontier tensors, and the frontier tensors in `base`.

    Raises:
        UserError: `depth` is above the number of layers.
    """
    if not 0 <= depth <= len(base.layers):
        raise UserError(
            f"params.yaml: unfreeze_depth = {depth}; {len(base.layers)} layers are all that the backbone has, "
            f"so it needs an integer >= 0 and <= {len(base.layers)}"
        )
    own_nodes = {
        node for nodes in base._nodes_by_depth.values() for node in nodes
    }  # a layer also has nodes of other models that call it
    # Bare operations, as a ConvNeXt's residual additions are, count for no layer but belong to one side or the other.
    operations = base.operations
    tail = operations[operations.index(base.layers[-depth]) :] if depth else []
    frontier = {
        id(tensor): tensor
        for operation in tail
        for node in operation._inbound_nodes
        if node in own_nodes
        for tensor in node.input_tensors
        if tensor._keras_history.operation not in tail
    }
    tensors = list(frontier.values()) or [base.input if depth else base.output]
    return keras.Model(base.input, tensors, name="trunk"), tensors


def freeze(base: keras.Model, depth: int, normalization: str = "frozen") -> None:
    """Leave the last `depth` layers of `base` trainable, with BatchNormalization only where that is `trained`.

    A BatchNormalization layer that is merely called with `training=False` still updates its statistics under `fit`
    (Keras 3.3 to 3.15, keras#23364); `trainable = False` is what keeps it in inference mode. Compile afterwards.
    """
    first = len(base.layers) - depth
    for index, layer in enumerate(base.layers):
        layer.trainable = index >= first
    if normalization == "frozen":
        freeze_normalization(base)


def freeze_normalization(model: keras.Model) -> None:
    """Keep every BatchNormalization layer of `model` in inference mode. Compile afterwards."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def classify(feature_maps: keras.KerasTensor, head: keras.Model) -> keras.KerasTensor:
    """Global average pooling and `head`: (n, h, w, d) feature maps -> (n, 1) probabilities."""
    return head(keras.layers.GlobalAveragePooling2D(name="pooling")(feature_maps))
