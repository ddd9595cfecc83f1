"""Cut a network into a part that stays frozen and a part that is trained, and freeze the former."""

from ctscan.core.errors import UserError

import keras


def cut_network(base: keras.Model, depth: int) -> tuple[keras.Model, list[keras.KerasTensor]]:
    """Cut `base` before its last `depth` layers.

    Several tensors cross a cut inside a residual block: that of the branch and that of the shortcut. They are in the
    order of the operations that read them. With `depth` 0 the network's output crosses the cut, with all layers its
    input does.

    Returns:
        The frozen part, a model from the network's input to the list of tensors that cross the cut, and those tensors
        in `base`, which are the inputs of the trained part.

    Raises:
        UserError: `depth` is above the number of layers.
    """
    if not 0 <= depth <= len(base.layers):
        raise UserError(
            f"params.yaml: unfreeze_depth = {depth}; {len(base.layers)} layers are all that the backbone has, "
            f"so it needs an integer >= 0 and <= {len(base.layers)}"
        )
    # A layer also has nodes of other models that call it.
    own_nodes = {node for nodes in base._nodes_by_depth.values() for node in nodes}
    # Bare operations, such as a ConvNeXt's residual additions, do not count as layers but belong to one of the parts.
    operations = base.operations
    trained = operations[operations.index(base.layers[-depth]) :] if depth else []
    crossing = {
        id(tensor): tensor
        for operation in trained
        for node in operation._inbound_nodes
        if node in own_nodes
        for tensor in node.input_tensors
        if tensor._keras_history.operation not in trained
    }
    cut = list(crossing.values()) or [base.input if depth else base.output]
    return keras.Model(base.input, cut, name="frozen_part"), cut


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
