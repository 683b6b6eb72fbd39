"""What several test files share."""

import os

import supair  # noqa: F401, first: it chooses Keras's backend, whatever the environment says

screen = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what TensorFlow says when it is imported
# isort: split
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

os.dup2(screen, 2)
# What takes most of the tests' time is building the graphs of small models: without rewriting them,
# which XLA ignores, and without shortening tracebacks it is a third less.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
tf.debugging.disable_traceback_filtering()
keras.config.disable_traceback_filtering()
