"""The checksum of TFRecord files, for many records at a time, in NumPy.

A checksum is linear in its bytes, so two neighbouring pieces combine as
`crc(a + b) == shift(crc(a), len(b)) ^ crc(b)`: a message is folded in half, log2(length) times.
"""

import functools

import numpy as np

__all__ = ["crc32c", "masked_crc32c"]

_POLYNOMIAL = 0x82F63B78
_WORD = 8  # bytes that are looked up in tables, two at a time, before folding starts
# The four bytes after which a register that started at 0 holds the 0xFFFFFFFF that CRC-32C
# starts with. Zeros in front of them leave a register of 0 as it is: messages can be padded.
_PREFIX = np.frombuffer(b"\x54\x64\x1f\x64", np.uint8)


def crc32c(messages: list[bytes]) -> np.ndarray:
    """CRC-32C (Castagnoli) of each message.

    Args:
        messages: any number of byte strings of any lengths.

    Returns:
        Checksums `[messages]` uint32.

    References:
        RFC 3720, section 12.1 and appendix B.4.

    Example:
        >>> hex(crc32c([b"123456789"])[0])
        '0xe3069283'
    """
    sums = np.zeros(len(messages), np.uint32)
    rows_by_width = {}
    for row, message in enumerate(messages):
        length = len(message) + len(_PREFIX)
        # Of near lengths one width: at most an eighth more than needed.
        grain = max(_WORD, (1 << length.bit_length()) // 16)
        width = -(-length // grain) * grain
        rows_by_width.setdefault(width, []).append(row)
    for width, rows in rows_by_width.items():
        # In pieces that stay near 1 MB, where the processor's cache holds them.
        step = max(1, (1 << 18) // width)
        for first in range(0, len(rows), step):
            piece = rows[first : first + step]
            sums[piece] = _fold(_right_aligned([messages[row] for row in piece], width=width))
    return sums


def masked_crc32c(messages: list[bytes]) -> np.ndarray:
    """The checksums as TFRecord stores them: rotated by 15 bits, plus a constant.

    Args:
        messages: any number of byte strings.

    Returns:
        Masked checksums `[messages]` uint32.

    Example:
        >>> hex(masked_crc32c([b"123456789"])[0])
        '0xc78ab0e5'
    """
    sums = crc32c(messages)
    return ((sums >> np.uint32(15)) | (sums << np.uint32(17))) + np.uint32(0xA282EAD8)


def _right_aligned(messages, *, width):
    """Messages behind their prefix `[messages, width]` uint8, with zeros in front."""
    grid = np.zeros([len(messages), width], np.uint8)
    for row, message in zip(grid, messages, strict=True):
        start = width - len(message)
        row[start:] = np.frombuffer(message, np.uint8)
        row[start - len(_PREFIX) : start] = _PREFIX
    return grid


def _fold(grid):
    """Checksums `[rows]` of `[rows, width]` bytes; width a multiple of _WORD."""
    pairs = grid.view("<u2").reshape(len(grid), -1, _WORD // 2)
    registers = _pair_tables()[0][pairs[..., 0]]
    for place in range(1, _WORD // 2):
        registers ^= _pair_tables()[place][pairs[..., place]]
    level = _WORD.bit_length() - 1
    while registers.shape[1] > 1:
        if registers.shape[1] % 2:
            registers = np.pad(registers, ((0, 0), (1, 0)))
        registers = _apply(_shift_table(level), registers[:, ::2]) ^ registers[:, 1::2]
        level += 1
    return ~registers[:, 0]


def _apply(table, registers):
    """A linear map of registers, tabulated for each value of each of their four bytes."""
    parts = np.ascontiguousarray(registers, "<u4").view(np.uint8).reshape(*registers.shape, 4)
    result = table[0][parts[..., 0]]
    for byte in (1, 2, 3):
        result ^= table[byte][parts[..., byte]]
    return result


@functools.cache
def _shift_table(level):
    """What 2^level more zero bytes do to a register: `[4, 256]` uint32."""
    if level == 0:
        register = np.arange(256, dtype=np.uint32)
        for _ in range(8):
            odd = (register & 1).astype(bool)
            register = np.where(odd, (register >> 1) ^ np.uint32(_POLYNOMIAL), register >> 1)
        others = [np.arange(256, dtype=np.uint32) << np.uint32(8 * byte) for byte in range(3)]
        return np.stack([register, *others])
    half = _shift_table(level - 1)
    return _apply(half, half)


@functools.cache
def _pair_tables():
    """Register after a word that is zero but for two of its bytes: `[_WORD / 2, 65536]`.

    The first of the two bytes is the low one of the index.
    """
    bytes_ = np.arange(256, dtype=np.uint32)
    first = _apply(_shift_table(1), bytes_)
    second = _apply(_shift_table(0), bytes_)
    tables = [(second[:, None] ^ first[None, :]).ravel()]
    while len(tables) < _WORD // 2:
        tables.insert(0, _apply(_shift_table(1), tables[0]))
    return np.stack(tables)
