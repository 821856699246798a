"""A directory that TFDS prepared, read without TensorFlow."""

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spae.errors import InputError
from spae.sources.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, LABEL_COLUMNS, column_of, label_among
from spae.sources.fields import class_name
from spae.sources.source import Source


class TfdsSource(Source):
    """One split of a TFDS directory in array_record format."""

    def __init__(self, directory: Path, split: str, size: int | None) -> None:
        for module, package in (
            ("tensorflow_datasets", "tensorflow-datasets"),
            ("array_record", "array-record"),
        ):
            if find_spec(module) is None:
                raise InputError(
                    f"reading the TFDS directory {directory} needs {package}: pip install {package}"
                )
        super().__init__(sorted(file for file in directory.iterdir() if file.is_file()), size)
        self.directory, self.part = directory, split
        names = list(self._data.dataset_info.features)
        self._image = column_of(names, IMAGE_COLUMNS)
        if self._image is None:
            raise InputError(
                f"{directory} has no feature {' or '.join(IMAGE_COLUMNS)}, but {', '.join(names)}"
            )
        self._label_feature, self._caption = (
            column_of(names, LABEL_COLUMNS),
            column_of(names, CAPTION_COLUMNS),
        )

    @cached_property
    def _data(self) -> Any:
        import tensorflow_datasets as tfds
        from google.protobuf.json_format import ParseError

        try:
            builder = tfds.builder_from_directory(self.directory)
            image = column_of(list(builder.info.features), IMAGE_COLUMNS)
            # Undecoded bytes go through the same guards as every other image.
            encoded = image is not None and isinstance(builder.info.features[image], tfds.features.Image)
            decoders = {image: tfds.decode.SkipDecoding()} if encoded else None
            return builder.as_data_source(split=self.part, decoders=decoders)
        # NotImplementedError is TFDS' own, for data sets whose files have no access by index.
        # The other three are of a dataset_info.json or features.json that is JSON of something else, or none.
        except (
            ValueError,
            KeyError,
            OSError,
            NotImplementedError,
            ParseError,
            TypeError,
            AttributeError,
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            where = f"split {self.part} of the TFDS directory {self.directory}"
            raise InputError(f"cannot read {where}: {reason}") from error

    def __len__(self) -> int:
        return len(self._data)

    def key(self, index: int) -> str:
        return f"{self.part}/{index}"

    def _label(self, example: dict[str, Any]) -> str | None:
        if self._label_feature is None:
            return None
        value, feature = example[self._label_feature], self._data.dataset_info.features[self._label_feature]
        if names := getattr(feature, "names", None):
            label = label_among(names, int(value))
        else:
            label = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        return label and class_name(label)

    def _read(self, index: int) -> tuple[Any, str | None, str | None, str]:
        try:
            example = self._data[index]
        except RuntimeError as error:  # array_record's, of checksums that do not fit and of what is cut off
            raise InputError(f"cannot read {self.key(index)} of {self.directory}: {error}") from error
        caption = example[self._caption] if self._caption else None
        caption = caption.decode("utf-8", "replace") if isinstance(caption, bytes) else caption
        try:
            label = self._label(example)
        except InputError as error:
            raise InputError(f"{self.key(index)} of {self.directory}: {error}") from error
        return example[self._image], label, caption, self.key(index)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_data"}
