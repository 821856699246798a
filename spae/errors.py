"""The two errors a user can cause; every message says what was wanted, what came and what to do."""


class InputError(ValueError):
    """An input (an image, a text, a file of images, an option) is not what the function takes."""


class BundleError(RuntimeError):
    """A bundle or vocabulary on disk is missing, damaged, or of a version this code does not read."""
