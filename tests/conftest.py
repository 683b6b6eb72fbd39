"""What several test files share."""

import supair  # noqa: F401, first: it chooses Keras's backend, whatever the environment says

# isort: split
import keras
import tensorflow as tf

# What takes most of the tests' time is building the graphs of small models: without rewriting them,
# which XLA ignores, and without shortening tracebacks it is a third less.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
tf.debugging.disable_traceback_filtering()
keras.config.disable_traceback_filtering()
