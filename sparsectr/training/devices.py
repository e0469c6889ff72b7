"""Which devices a run uses, and how exact it is."""

import keras
import tensorflow as tf

from sparsectr.errors import InputError


def make_strategy(num_devices: int) -> tf.distribute.Strategy:
    """Returns the strategy for a number of devices.

    Args:
        num_devices: 0 for every GPU, or the one CPU where there is none;
            above that so many GPUs, or logical CPU devices.

    Raises:
        InputError: If there are fewer GPUs than asked for, or TensorFlow has
            begun to run and the CPU cannot be divided any more.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and num_devices > len(gpus):
        raise InputError(
            f"--num_devices={num_devices}, but there are {len(gpus)} GPUs."
        )
    count = num_devices or max(len(gpus), 1)
    if count == 1:
        return tf.distribute.get_strategy()
    kind = "GPU" if gpus else "CPU"
    if not gpus:
        _divide_cpu(count)
    return tf.distribute.MirroredStrategy(
        [f"{kind}:{index}" for index in range(count)]
    )


def _divide_cpu(count: int) -> None:
    if len(tf.config.list_logical_devices("CPU")) >= count:
        return
    raise InputError(
        f"The CPU was not divided into {count} devices; call "
        "`prepare_process` before anything runs."
    )


def prepare_process(seed: int, num_devices: int) -> None:
    """Makes this process reproducible; call it before anything runs.

    Seeds Python, NumPy and Keras, asks for deterministic kernels, and divides
    the CPU into logical devices where there is no GPU.

    Args:
        seed: Seed of weights and dropout.
        num_devices: See `make_strategy`.
    """
    cpus = tf.config.list_physical_devices("CPU")
    if num_devices > 1 and not tf.config.list_physical_devices("GPU"):
        tf.config.set_logical_device_configuration(
            cpus[0], [tf.config.LogicalDeviceConfiguration()] * num_devices
        )
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
