"""Writes nips/examples/toploc.json: proofs of invented states, and how far others are
from them. It is computed from nips/verification.md alone, with none of the engine's
code, and needs nothing but Python.
"""

import json
from pathlib import Path
from statistics import mean, median

EXAMPLES = Path(__file__).resolve().parent.parent / "nips" / "examples"
PRIME, CHUNK, KEPT, LEAST_MODULUS = 65497, 32, 128, 32768


def invented(number, multiplier, drift):
    """The bits of a chunk's number, as the example says."""
    spread = (number + 1) ** 2 * multiplier % (2**31 - 1)
    return (spread >> 8) % 32512 + number % (drift + 1) | (spread & 1) << 15


def kept(bits):
    """The places of the largest numbers, in ascending order."""
    ranked = sorted(range(len(bits)), key=lambda place: (-(bits[place] & 0x7FFF), place))
    return sorted(ranked[:KEPT])


def product(polynomial, factor):
    result = [0] * (len(polynomial) + 1)
    for at, coefficient in enumerate(polynomial):
        result[at] = (result[at] + coefficient * factor[0]) % PRIME
        result[at + 1] = (result[at + 1] + coefficient * factor[1]) % PRIME
    return result


def through(points):
    """Lagrange's polynomial, coefficients from the constant on."""
    total = [0] * len(points)
    for place, value in points:
        term, divisor = [1], 1
        for other, _ in points:
            if other != place:
                term = product(term, [-other % PRIME, 1])
                divisor = divisor * (place - other) % PRIME
        scale = value * pow(divisor, -1, PRIME) % PRIME
        for at, coefficient in enumerate(term):
            total[at] = (total[at] + scale * coefficient) % PRIME
    return total


def prove(bits):
    places = kept(bits)
    modulus = next(m for m in range(PRIME, LEAST_MODULUS - 1, -1) if len({p % m for p in places}) == len(places))
    coefficients = through([(place % modulus, bits[place] % PRIME) for place in places])
    numbers = [modulus] + coefficients + [0] * (KEPT - len(coefficients))
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def distance(bits, proof):
    numbers = [int.from_bytes(proof[at:at + 2], "big") for at in range(0, len(proof), 2)]
    modulus, coefficients = numbers[0], numbers[1:]
    places, mantissas = kept(bits), []
    for place in places:
        at = place % modulus % PRIME
        said = sum(c * pow(at, power, PRIME) for power, c in enumerate(coefficients)) % PRIME
        if said >> 7 == bits[place] >> 7:
            mantissas.append(abs((said & 127) - (bits[place] & 127)))
    return {
        "exponents": (len(places) - len(mantissas)) * KEPT // len(places),
        "mantissa_mean": mean(mantissas) if mantissas else 0,
        "mantissa_median": median(mantissas) if mantissas else 0,
    }


def case(tokens, width, multiplier, drifts):
    chunks = [range(start, min(start + CHUNK, tokens)) for start in range(0, tokens, CHUNK)]

    def states(chunk, drift):
        first = chunk.start * width
        return [invented(first + number, multiplier, drift) for number in range(len(chunk) * width)]

    proofs = [prove(states(chunk, 0)) for chunk in chunks]
    return {
        "tokens": tokens,
        "width": width,
        "multiplier": multiplier,
        "proof": b"".join(proofs).hex(),
        "checks": [
            {"drift": drift, "chunks": [distance(states(c, drift), proof) for c, proof in zip(chunks, proofs)]}
            for drift in drifts
        ],
    }


cases = [
    case(40, 16, 40_503_001, [0, 1, 6, 200]),
    case(1, 300, 69_621_007, [0, 3]),
    case(32, 4096, 16_807_043, [0, 2]),
    case(3, 20, 1_234_567, [0, 40]),
]
text = json.dumps(cases, indent=1)
(EXAMPLES / "toploc.json").write_text(text + "\n")
