"""The reader of PyTorch files: PyTorch's own values, and nothing but tensors."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from spae.errors import InputError
from spae.weights.torch_file import read_torch_file

GOLDEN = Path(__file__).parents[2] / "golden"
LAYOUTS = ("torch_zip.pth", "torch_legacy.pth")


@pytest.mark.parametrize("file", LAYOUTS)
def test_reads_what_torch_wrote(file):
    ours = read_torch_file(GOLDEN / file)
    with np.load(GOLDEN / "torch_file.npz") as arrays:
        theirs = dict(arrays)
    assert set(ours) == set(theirs)
    for name in theirs:
        dtype = ml_dtypes.bfloat16 if name == "bfloat" else theirs[name].dtype
        assert ours[name].dtype == dtype, name
        np.testing.assert_array_equal(ours[name].astype(theirs[name].dtype), theirs[name], err_msg=name)
        assert ours[name].flags.c_contiguous, name


@pytest.mark.parametrize("file", LAYOUTS)
def test_truncated_files_are_refused(file, tmp_path):
    whole = (GOLDEN / file).read_bytes()
    for length in (0, 1, 20, len(whole) // 4, len(whole) // 2, len(whole) - 30):
        cut = tmp_path / f"{length}.pth"
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_torch_file(cut)


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def legacy(payload: bytes) -> bytes:
    header = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return (
        b"".join(pickle.dumps(part, protocol=2) for part in header) + payload + pickle.dumps([], protocol=2)
    )


@pytest.mark.parametrize("packed", [False, True], ids=["legacy", "zip"])
@pytest.mark.parametrize("layer", ["state", "header"])
def test_a_malicious_pickle_does_nothing(packed, layer, tmp_path):
    witness = tmp_path / "witness"
    attack = pickle.dumps({"weight": Evil(os.system, f"touch {witness}")}, protocol=2)
    file = tmp_path / "evil.pth"
    if packed:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", attack)
    else:
        file.write_bytes(legacy(attack) if layer == "state" else attack)
    with pytest.raises(InputError, match="system"):
        read_torch_file(file)
    assert not witness.exists()


@pytest.mark.parametrize("function", [eval, getattr, __import__, np.frombuffer], ids=lambda f: f.__name__)
def test_every_other_name_is_refused(function, tmp_path):
    file = tmp_path / "evil.pth"
    file.write_bytes(legacy(pickle.dumps({"weight": Evil(function, "1")}, protocol=2)))
    with pytest.raises(InputError, match="no file of plain tensors"):
        read_torch_file(file)


def test_dotted_names_reach_nothing(tmp_path):
    file = tmp_path / "evil.pth"
    file.write_bytes(legacy(b"\x80\x04\x8c\x0bcollections\x8c\x16OrderedDict.__class__.x\x93."))
    with pytest.raises(InputError):
        read_torch_file(file)


def test_only_flat_mappings_of_tensors(tmp_path):
    file = tmp_path / "numbers.pth"
    file.write_bytes(legacy(pickle.dumps(OrderedDict(epoch=3), protocol=2)))
    with pytest.raises(InputError, match="expected a tensor at 'epoch', got int"):
        read_torch_file(file)


def tensor_pickle(shape: bytes, strides: bytes, offset: int = 0) -> bytes:
    """A state dict of one float tensor in a storage of 4 numbers, written opcode by opcode."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04NtQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K" + bytes([offset]) + shape + strides
    return b"\x80\x02}X\x01\x00\x00\x00w" + call + b"\x89}tRs."


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        (b"(K\x05t", b"(K\x01t", 0),  # longer than the storage
        (b"(K\x02t", b"(K\x04t", 0),  # a stride beyond its end
        (b"(K\x02t", b"(K\x01t", 3),  # an offset beyond its end
        (b"(J\xff\xff\xff\x7ft", b"(K\x00t", 0),  # expanded: two billion times one number
        (b"(J\xff\xff\xff\xfft", b"(K\x01t", 0),  # a negative side
    ],
)
def test_tensors_outside_their_storage_are_refused(shape, strides, offset, tmp_path):
    numbers = np.arange(4, dtype="<f4")
    head = legacy(b"")[: -len(pickle.dumps([], protocol=2))]
    tail = pickle.dumps(["0"], protocol=2) + (4).to_bytes(8, "little") + numbers.tobytes()
    good = tmp_path / "good.pth"
    good.write_bytes(head + tensor_pickle(b"(K\x02K\x02t", b"(K\x01K\x02t") + tail)
    np.testing.assert_array_equal(read_torch_file(good)["w"], numbers.reshape(2, 2).T)
    bad = tmp_path / "bad.pth"
    bad.write_bytes(head + tensor_pickle(shape, strides, offset) + tail)
    with pytest.raises(InputError):
        read_torch_file(bad)


def test_missing_file():
    with pytest.raises(InputError, match="found none"):
        read_torch_file("nowhere.pth")


def test_tensors_as_the_oldest_files_have_them(tmp_path):
    """Those older than PyTorch 0.4 (such as torchvision's VGG16) name another function, of fewer arguments."""
    whole = (GOLDEN / "torch_legacy.pth").read_bytes()
    old = tmp_path / "old.pth"
    old.write_bytes(whole.replace(b"_rebuild_tensor_v2\n", b"_rebuild_tensor\n"))
    assert b"_rebuild_tensor_v2" not in old.read_bytes()
    ours, theirs = read_torch_file(old), read_torch_file(GOLDEN / "torch_legacy.pth")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor)


def test_a_parameter_is_its_tensor(tmp_path):
    numbers = np.arange(4, dtype="<f4")
    tensor = tensor_pickle(b"(K\x02K\x02t", b"(K\x02K\x01t")
    start = tensor.index(b"ctorch._utils")
    call = b"ctorch._utils\n_rebuild_parameter\n(" + tensor[start:-2] + b"\x88}tR"  # (tensor, True, {})
    file = tmp_path / "parameter.pth"
    head = legacy(b"")[: -len(pickle.dumps([], protocol=2))]
    tail = pickle.dumps(["0"], protocol=2) + (4).to_bytes(8, "little") + numbers.tobytes()
    file.write_bytes(head + tensor[:start] + call + b"s." + tail)
    np.testing.assert_array_equal(read_torch_file(file)["w"], numbers.reshape(2, 2))
