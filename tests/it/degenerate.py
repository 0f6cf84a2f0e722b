#!/usr/bin/env python3
"""Makes tests/it/degenerate.txt: `tests/it/degenerate.py > tests/it/degenerate.txt`. Needs the ostree command only.

Keys and signatures of Ed25519 that look whole and must not be taken, by the classes of RFC 8032 (5.1.3 decoding, 5.1.7 the
range of S), Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs" (2020), and de Valence, "It's 255:19AM" (2020). The
values are made here, from a fixed seed. Most of the first ones satisfy the equation, so that only the rule they are there
for keeps them out: the fourth column says who would take them, a check with the cofactor, one without, or nobody.
"""
import hashlib
import os
import subprocess
import tempfile
from math import gcd

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)
ZERO = (0, 1)


def add(one, other):
    (a, b), (c, d) = one, other
    e = D * a * b * c * d % P
    x = (a * d + b * c) * pow(1 + e, P - 2, P)
    y = (b * d + a * c) * pow(1 - e, P - 2, P)
    return x % P, y % P


def times(n, point):
    result = ZERO
    while n:
        if n & 1:
            result = add(result, point)
        point, n = add(point, point), n >> 1
    return result


def decode(data):
    """Without a look at whether it is canonical; None where there is no point."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number % 2**255 % P
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT % P
    if x * x % P != square:
        return None
    return (P - x if x % 2 != sign else x) % P, y


def encode(point, plus=0):
    x, y = point
    return (y + plus | (x & 1) << 255).to_bytes(32, "little")


def with_sign(data):
    return data[:31] + bytes([data[31] ^ 0x80])


def number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


BASE = decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def secret(name):
    data = hashlib.sha512(name).digest()
    a = int.from_bytes(data[:32], "little") & (2**254 - 8) | 2**254
    return a, data[32:], encode(times(a, BASE))


def sign(pair, message, dom=b""):
    a, prefix, public = pair
    r = number(dom, prefix, message) % L
    first = encode(times(r, BASE))
    return first + scalar((r + number(dom, first, public, message) * a) % L)


def scalar(n):
    return n.to_bytes(32, "little")


def taken(key, signature, message):
    """Who takes it, of those who look at nothing but the equation."""
    a, r, s = decode(key), decode(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None:
        return "nobody"
    h = number(signature[:32], key, message) % (8 * L)
    left, right = times(s, BASE), add(r, times(h, a))
    if left == right:
        return "both"
    return "cofactor" if times(8, left) == times(8, right) else "nobody"


def commit():
    with tempfile.TemporaryDirectory() as place:
        tree, repo = place + "/tree", "--repo=" + place + "/repo"
        os.mkdir(tree, 0o755)

        def run(*words):
            return subprocess.run(("ostree",) + words, check=True, capture_output=True, text=True).stdout

        run("init", repo, "--mode=archive")
        owner = ("--owner-uid=0", "--owner-gid=0", "--no-xattrs")
        name = run("commit", repo, "-b", "os/stable", "--timestamp=@0", *owner, tree).strip()
        with open(f"{place}/repo/objects/{name[:2]}/{name[2:]}.commit", "rb") as file:
            return file.read()


def small():
    """The eight points of small order, and the other ways to write them."""
    points = (decode(scalar(y)) for y in range(3, 99))
    order8 = times(L, next(point for point in points if point and times(4 * L, point) != ZERO))
    rows = [(f"order {8 // gcd(n, 8)}, {n} times the first", encode(times(n, order8))) for n in range(1, 8)]
    rows.append(("order 1", encode(ZERO)))
    other = [("order 1, sign of zero", with_sign(encode(ZERO))), ("order 2, sign of zero", with_sign(encode((0, P - 1))))]
    for name, y in (("order 4, y + p", 0), ("order 1, y + p", 1)):
        data = scalar(y + P)
        other += [(name, data), (name + ", other sign", with_sign(data))]
    return rows + other


def rows(message):
    good, other = secret(b"bootward"), secret(b"stranger")
    a, _, key = good
    whole = sign(good, message)
    first, s = whole[:32], int.from_bytes(whole[32:], "little")
    for name, r in small():
        h = number(r, key, message) % L
        yield "signature", f"R of {name}", key, r + scalar(h * a % L)
    for k in range(1, 16):
        yield "signature", f"S + {k} L", key, first + scalar(s + k * L)
    for k in range(2, 19):
        r = scalar(P + k)
        yield "signature", f"R with y = p + {k}", key, r + scalar(number(r, key, message) * a % L)
    singles = {
        "zeros": bytes(64), "ones": b"\xff" * 64, "S of zero": first + scalar(0), "S of one": first + scalar(1),
        "S of L": first + scalar(L), "S of L - 1": first + scalar(L - 1), "S negated": first + scalar(L - s),
        "R negated": with_sign(first) + scalar(s), "both negated": with_sign(first) + scalar(L - s),
        "halves swapped": whole[32:] + first, "R of the key": key + scalar(s), "bytes reversed": whole[::-1],
        "another key's": sign(other, message), "of the checksum": sign(good, hashlib.sha256(message).digest()),
        "of the checksum's digits": sign(good, hashlib.sha256(message).hexdigest().encode()),
        "of a byte more": sign(good, message + b"\n"), "of a byte less": sign(good, message[:-1]), "of nothing": sign(good, b""),
        "Ed25519ph": sign(good, hashlib.sha512(message).digest(), b"SigEd25519 no Ed25519 collisions\x01\x00"),
        "Ed25519ctx": sign(good, message, b"SigEd25519 no Ed25519 collisions\x00\x06commit"),
    }
    for name, signature in singles.items():
        yield "signature", name, key, signature
    for name, weak in small():
        # A nonce for which the key drops out of the equation: anybody can find it.
        for n in range(1, 10**6):
            r = encode(times(n, BASE))
            if times(number(r, weak, message) % 8, decode(weak)) == ZERO:
                break
        yield "key", name, weak, r + scalar(n)
    for k in range(2, 19):
        for twin in (scalar(P + k), with_sign(scalar(P + k))):
            yield "key", f"y = p + {k}" + (", other sign" if twin[31] & 0x80 else ""), twin, whole
    nowhere = [y for y in range(2, 99) if decode(scalar(y)) is None][:8]
    for y in nowhere:
        yield "key", f"y = {y}, no point", scalar(y), whole


def main():
    message = commit()
    good = secret(b"bootward")
    print("commit\tos/stable, empty\t" + message.hex() + "\t-\t-")
    for kind, name, key, signature in [("good", "good", good[2], sign(good, message)), *rows(message)]:
        print(kind, name, key.hex(), signature.hex(), taken(key, signature, message), sep="\t")


main()
