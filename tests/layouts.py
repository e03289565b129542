"""Writes tiny copies of published data sets: the real folders and file names, a few images each."""

import pickle
import struct

import numpy as np
import scipy.io

from tests.pictures import picture

__all__ = ["WRITERS", "face_bin", "ijbc", "lfw", "recordio"]


def _write(root, file, content):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _image(root, file, seed):
    _write(root, file, picture("jpeg", size=(20, 24), seed=seed))


def market1501(root):
    """Two people to train on, two to look for, junk, distractors, an odd name, Thumbs.db."""
    folder = root / "Market-1501-v15.09.15"
    for number, pid in enumerate((2, 2, 7, 7)):
        _image(
            folder, f"bounding_box_train/{pid:04d}_c{number % 2 + 1}s1_000451_0{number}.jpg", pid
        )
    for number, (pid, camera) in enumerate([(1, 1), (5, 2)]):
        _image(folder, f"query/{pid:04d}_c{camera}s1_001051_0{number}.jpg", pid)
    gallery = [(1, 1), (1, 2), (1, 6), (5, 2), (5, 3), (0, 1), (0, 4), (-1, 1), (-1, 3)]
    for number, (pid, camera) in enumerate(gallery):
        name = f"{pid:04d}" if pid >= 0 else "-1"
        _image(folder, f"bounding_box_test/{name}_c{camera}s1_00{number}401_03.jpg", pid + 1)
    _write(folder, "bounding_box_test/Thumbs.db", b"")
    _image(folder, "bounding_box_train/copy of 2.jpg", 2)


def msmt17(root, *, version=1):
    """Two people to train on (one by the validation list), two to look for."""
    folder = root / f"MSMT17_V{version}"
    train, test = ("train", "test") if version == 1 else ("mask_train_v2", "mask_test_v2")

    def write_list(name, where, rows):
        lines = []
        for number, (pid, camera) in enumerate(rows):
            file = f"{pid:04d}/{pid:04d}_{number:03d}_{camera:02d}_0303morning_0006_2.jpg"
            _image(folder, f"{where}/{file}", pid)
            lines.append(f"{file} {pid}\n")
        _write(folder, f"list_{name}.txt", "".join(lines))

    write_list("train", train, [(0, 1), (0, 2), (1, 3)])
    write_list("val", train, [(1, 15)])
    write_list("query", test, [(0, 1), (1, 2)])
    write_list("gallery", test, [(0, 1), (0, 5), (1, 2), (1, 9)])


def cub200(root):
    """Classes 1 and 100 to train on, 101 and 200 to test on, two images each."""
    folder = root / "CUB_200_2011"
    images, labels, number = [], [], 0
    for label in (1, 100, 101, 200):
        for _ in range(2):
            number += 1
            file = f"{label:03d}.Bird_{label}/Bird_{label}_{number:04d}.jpg"
            _image(folder, f"images/{file}", label)
            images.append(f"{number} {file}\n")
            labels.append(f"{number} {label}\n")
    _write(folder, "images.txt", "".join(images))
    _write(folder, "image_class_labels.txt", "".join(labels))
    _write(folder, "train_test_split.txt", "1 1\n")


def _annotations(path, rows, name):
    entries = np.array(
        [(np.array(file), np.array([[label]], np.uint8)) for file, label in rows],
        dtype=[(name, object), ("class", object)],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"annotations": entries[None]})


def cars196(root, *, one_file=False):
    """Classes 1 and 98 to train on, 99 and 196 to test on, two images each."""
    rows = [(f"{n:05d}.jpg", label) for n, label in enumerate((1, 98, 99, 196, 1, 98, 99, 196), 1)]
    if one_file:
        rows = [(f"car_ims/0{file}", label) for file, label in rows]
        _annotations(root / "cars_annos.mat", rows, "relative_im_path")
        for file, label in rows:
            _image(root, file, label)
        return
    halves = {"cars_train": ("cars_train_annos.mat", rows[:5])}
    halves["cars_test"] = ("cars_test_annos_withlabels.mat", rows[5:])
    for folder, (file, part) in halves.items():
        _annotations(root / "devkit" / file, part, "fname")
        for name, label in part:
            _image(root, f"{folder}/{name}", label)


def sop(root):
    """Two products to train on, two to test on."""
    folder = root / "Stanford_Online_Products"
    for part, labels in (("train", (1, 2)), ("test", (11319, 11320))):
        lines = ["image_id class_id super_class_id path\n"]
        for label in labels:
            for number in range(2):
                file = f"bicycle_final/{label}_{number}.JPG"
                _image(folder, file, label)
                lines.append(f"{len(lines)} {label} 1 {file}\n")
        _write(folder, f"Ebay_{part}.txt", "".join(lines))


def inshop(root):
    """Two items to train on, two to look for."""
    rows = []
    for item, parts in ((1, ["train"] * 2), (2, ["train"] * 2), (3, ["query", "gallery"] * 2)):
        for number, part in enumerate(parts):
            rows.append((f"img/MEN/Denim/id_{item:08d}/0{number}_1_front.jpg", item, part))
    rows += [("img/MEN/Denim/id_00000004/01_1_front.jpg", 4, "query")]
    rows += [("img/MEN/Denim/id_00000004/02_2_side.jpg", 4, "gallery")]
    for file, item, _ in rows:
        _image(root, f"Img/{file}", item)
    lines = [f"{file}   id_{item:08d}   {part}\n" for file, item, part in rows]
    header = f"{len(rows)}\nimage_name item_id evaluation_status\n"
    _write(root, "Eval/list_eval_partition.txt", header + "".join(lines))


def lfw(root):
    """Three people, and three pairs."""
    for name, count in (("Ann_Li", 2), ("Bo", 2), ("Cy_O'Neil", 1)):
        for number in range(1, count + 1):
            _image(root, f"lfw/{name}/{name}_{number:04d}.jpg", len(name))
    lines = ["10\t300", "Ann_Li\t1\t2", "Bo\t1\t2", "Ann_Li\t1\tCy_O'Neil\t1"]
    _write(root, "pairs.txt", "\n".join(lines) + "\n")


def face_bin(path, *, pairs=4, arrays=False, protocol=2, of_same=list):
    """Pairs as a pickle: images as bytes or arrays of bytes, bools as `of_same` makes them."""
    images = [picture("jpeg", size=(12, 12), seed=number // 3) for number in range(2 * pairs)]
    if arrays:
        images = [np.frombuffer(image, np.uint8) for image in images]
    same = [number % 2 == 0 for number in range(pairs)]
    path.write_bytes(pickle.dumps((images, of_same(same)), protocol=protocol))


def ijbc(root):
    """Five images of three templates, and two pairs."""
    rows = [
        ("1.jpg", 1, 10),
        ("2.jpg", 1, 11),
        ("3.jpg", 2, 12),
        ("4.jpg", 3, 13),
        ("5.jpg", 3, 13),
    ]
    lines = [" ".join(map(str, row)) for row in rows]
    _write(root, "meta/ijbc_face_tid_mid.txt", "\n".join(lines) + "\n")
    points = [f"{name} " + " ".join(f"{k}.5" for k in range(10)) + " 0.9" for name, _, _ in rows]
    _write(root, "meta/ijbc_name_5pts_score.txt", "\n".join(points) + "\n")
    _write(root, "meta/ijbc_template_pair_label.txt", "1 2 1\n1 3 0\n")


def recordio(root, *, header=True):
    """Three images of two classes; the second has the magic number within."""
    magic = struct.pack("<I", 0xCED7230A)
    contents = [picture("jpeg", seed=0), b"before" + magic + b"after", picture("png", seed=2)]
    data, index = bytearray(), []

    def add(number, record):
        index.append(f"{number}\t{len(data)}\n")
        pieces = record.split(magic)
        for at, piece in enumerate(pieces):
            kind = 0 if len(pieces) == 1 else (1 if at == 0 else 3)
            data.extend(magic + struct.pack("<I", kind << 29 | len(piece)) + piece)
            data.extend(b"\0" * (-len(piece) % 4))

    if header:
        add(0, struct.pack("<IfQQ2f", 2, 0.0, 0, 0, 4.0, 6.0))
        add(4, struct.pack("<IfQQ2f", 2, 0.0, 4, 0, 1.0, 3.0))  # One of a class, without an image.
    for number, (content, label) in enumerate(zip(contents, (5, 5, 7), strict=True), 1):
        add(number, struct.pack("<IfQQ", 0, float(label), number, 0) + content)
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.rec").write_bytes(data)
    (root / "train.idx").write_text("".join(index))
    return contents


WRITERS = {
    "market1501": market1501,
    "msmt17": msmt17,
    "cub200": cub200,
    "cars196": cars196,
    "sop": sop,
    "inshop": inshop,
}
