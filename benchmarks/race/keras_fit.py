"""Keras' example "Simple MNIST convnet", keras.io/examples/vision/mnist_convnet, on torch.

Its net with dropout, Adam at Keras' own rate, batches of 128, and pixels from 0 to 1; all images
are trained on, none held out.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from race import Task, parts

BATCH_SIZE = 128

os.environ["KERAS_BACKEND"] = "torch"


def train(task: Task, curve: parts.Curve) -> None:
    """Train by `Model.fit`."""
    import keras

    made = parts.make(task, BATCH_SIZE)
    keras.utils.set_random_seed(task.seed)
    images, test_images = (
        np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy(), np.float32) / 255
        for pixels in (made.pixels, made.test.images[:])
    )
    test_targets = made.test.targets.numpy()
    net = build(keras, images.shape[1:], classes=int(made.targets.max()) + 1)
    net.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])

    def accuracy() -> float:
        found = net.predict(test_images, batch_size=parts.EVALUATION_BATCH, verbose=0)
        return float((found.argmax(1) == test_targets).mean())

    callback = curve.callback(keras.callbacks.Callback, "on_epoch_begin", "on_epoch_end", accuracy)
    net.fit(
        images, made.targets.numpy(), batch_size=BATCH_SIZE, epochs=task.length(), verbose=0,
        callbacks=[callback],
    )  # fmt: skip


def build(keras: Any, shape: tuple[int, ...], classes: int) -> Any:
    """Return two 3 x 3 convolutions with max pooling, half of the features dropped, and softmax."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape=shape),
            layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(classes, activation="softmax"),
        ]
    )
