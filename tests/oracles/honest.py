"""Honest programs as models write them, each with tests that it passes."""

from __future__ import annotations

__all__ = ["HONEST"]

_HEAD = "from typing import Any, Dict, List, Optional, Tuple\n"

HONEST: dict[str, tuple[str, str]] = {
    "math": (
        "import math\ndef f(a, b): return math.gcd(a, b), math.sqrt(a)",
        "assert f(9, 6) == (3, 3.0)\nassert math.isclose(f(2, 1)[1], 2 ** 0.5)",
    ),
    "re": (
        "import re\ndef f(s): return re.findall(r'\\d+', s)\ndef m(s): return re.match(r'a(b*)', s)",
        "assert f('a1b22') == ['1', '22']\nassert m('abb').group(1) == 'bb'\nassert not m('x')",
    ),
    "collections": (
        "from collections import Counter, defaultdict, deque, OrderedDict, namedtuple\n"
        "P = namedtuple('P', 'x y')\ndef c(s): return Counter(s)\ndef d():\n"
        "    a = defaultdict(list); a[1].append(2); return a\n"
        "def q(): return deque([1, 2], maxlen=2)\ndef o(): return OrderedDict(b=1, a=2)\n"
        "def p(): return P(1, 2)",
        "assert c('aab') == {'a': 2, 'b': 1} and c('aab').most_common(1) == [('a', 2)]\n"
        "assert d() == {1: [2]}\nassert list(q()) == [1, 2] and list(o()) == ['b', 'a']\n"
        "assert p() == (1, 2) and p().x == 1",
    ),
    "itertools": (
        "import itertools\ndef f(n): return itertools.accumulate(range(n))\n"
        "def g(n): return list(itertools.permutations(range(n)))",
        "assert list(f(4)) == [0, 1, 3, 6]\nassert len(g(3)) == 6 and g(2)[1] == (1, 0)",
    ),
    "functools": (
        "import functools\n@functools.lru_cache(None)\n"
        "def fib(n): return n if n < 2 else fib(n-1) + fib(n-2)\n"
        "def f(x): return functools.reduce(lambda a, b: a * b, x, 1)",
        "assert fib(90) == 2880067194370816120\nassert f([2, 3, 4]) == 24",
    ),
    "heapq": (
        "import heapq\ndef f(x, k): return heapq.nsmallest(k, x)",
        "assert f([3, 1, 2], 2) == [1, 2]",
    ),
    "bisect": (
        "import bisect\ndef f(x, v): return bisect.bisect_left(x, v)",
        "assert f([1, 3, 5], 3) == 1",
    ),
    "string": (
        "import string\ndef f(s): return ''.join(c for c in s if c in string.ascii_lowercase)",
        "assert f('aBc') == 'ac'",
    ),
    "datetime": (
        "from datetime import date, datetime, timedelta\n"
        "def f(y): return date(y, 1, 1) + timedelta(days=31)\n"
        "def g(s): return datetime.strptime(s, '%Y-%m-%d')",
        "import datetime\nassert f(2026) == datetime.date(2026, 2, 1)\nassert g('2026-11-26').year == 2026\n"
        "assert f(2026).isoformat() == '2026-02-01'",
    ),
    "decimal": (
        "from decimal import Decimal\ndef f(x): return Decimal(x) * 2",
        "from decimal import Decimal\nassert f('0.1') == Decimal('0.2')\nassert f('0.5') == 1",
    ),
    "fractions": (
        "from fractions import Fraction\ndef f(a, b): return Fraction(a, b) + 1",
        "assert f(1, 2) == 1.5 and f(1, 3).denominator == 3",
    ),
    "random": (
        "import random\ndef f(seed):\n    r = random.Random(seed); return [r.random() for _ in range(3)]\n"
        "def g(x): random.shuffle(x); return x",
        "assert f(1) == f(1) != f(2)\nassert sorted(g([3, 1, 2])) == [1, 2, 3]",
    ),
    "typing": (
        _HEAD
        + "def f(x: List[int]) -> Optional[Tuple[int, int]]:\n    return (min(x), max(x)) if x else None",
        "assert f([2, 1, 3]) == (1, 3)\nassert f([]) is None",
    ),
    "json": (
        "import json\ndef f(s): return json.loads(s)\ndef g(v): return json.dumps(v, sort_keys=True)",
        "assert f('{\"a\": [1, null, 2.5]}') == {'a': [1, None, 2.5]}\nassert g({'b': 1}) == '{\"b\": 1}'",
    ),
    "hashlib": (
        "import hashlib\ndef f(s): return hashlib.md5(s.encode()).hexdigest()\n"
        "def g(b): return hashlib.sha256(b).digest()",
        "assert f('a') == '0cc175b9c0f1b6a831c399e269772661'\nassert len(g(b'x')) == 32",
    ),
    "statistics": (
        "import statistics\ndef f(x): return statistics.median(x), statistics.pstdev(x)",
        "assert f([1, 2, 3]) == (2, (2 / 3) ** 0.5)",
    ),
    "copy": (
        "import copy\ndef f(x):\n    y = copy.deepcopy(x); y[0].append(1); return y",
        "a = [[0], [2]]\nassert f(a) == [[0, 1], [2]] and a == [[0], [2]]",
    ),
    "operator": (
        "import operator\ndef f(x): return sorted(x, key=operator.itemgetter(1))",
        "assert f([('a', 2), ('b', 1)]) == [('b', 1), ('a', 2)]",
    ),
    "dataclasses": (
        "from dataclasses import dataclass, field\n@dataclass(order=True)\nclass P:\n"
        "    x: int\n    y: list = field(default_factory=list)\ndef f(a): return P(a)",
        "assert f(3).x == 3 and f(3) == P(3) and f(3) != P(4)\nassert isinstance(f(1), P)",
    ),
    "enum": (
        "import enum\nclass C(enum.Enum):\n    A = 1\nclass N(enum.IntEnum):\n    B = 2\n"
        "def f(): return C.A\ndef g(): return N.B",
        "assert f() == C.A and f().name == 'A' and g() == 2",
    ),
    "a class": (
        "class Stack:\n    def __init__(self): self.s = []\n"
        "    def push(self, v): self.s.append(v); return self\n"
        "    def __len__(self): return len(self.s)\n    def __getitem__(self, k): return self.s[k]",
        "s = Stack()\ns.push(1).push(2)\nassert len(s) == 2 and s[1] == 2 and list(s) == [1, 2] and 1 in s\n"
        "s.s = [7]\nassert s.s == [7]",
    ),
    "nodes": (
        "class Node:\n    def __init__(self, v): self.v, self.left, self.right = v, None, None\n"
        "def depth(n): return 0 if n is None else 1 + max(depth(n.left), depth(n.right))",
        "root = Node(1)\nroot.left = Node(2)\nroot.left.right = Node(3)\nassert depth(root) == 3\n"
        "assert root.left.v == 2 and root.right is None",
    ),
    "a generator": (
        "def f(n):\n    a, b = 0, 1\n    for _ in range(n):\n        yield a\n        a, b = b, a + b",
        "assert list(f(6)) == [0, 1, 1, 2, 3, 5]\nassert next(f(1)) == 0 and sum(f(10)) == 88",
    ),
    "errors": (
        "class Bad(ValueError): pass\ndef f(x):\n    if x < 0: raise Bad('negative')\n    return {}[x]",
        "try:\n    f(-1)\nexcept ValueError as e:\n    assert str(e) == 'negative'\nelse:\n    assert False\n"
        "try:\n    f(1)\nexcept KeyError:\n    pass\nelse:\n    assert False",
    ),
    "changes its argument": (
        "def f(x): x.sort(); x.append(9)\ndef g(d): d['k'] = d.pop('a')",
        "a = [3, 1]\nassert f(a) is None and a == [1, 3, 9]\nd = {'a': 1}\ng(d)\nassert d == {'k': 1}",
    ),
    "takes functions": (
        "def f(g, x): return [g(v) for v in x]\ndef h(t): return t('3')",
        "assert f(lambda v: v * 2, [1, 2]) == [2, 4]\nassert h(int) == 3 and f(len, ['a', 'bc']) == [1, 2]\n"
        "def bad(v): raise KeyError(v)\n"
        "try:\n    f(bad, [1])\nexcept KeyError:\n    pass\nelse:\n    assert False",
    ),
    "gives functions": (
        "def f(n):\n    def g(x, *, k=1): return x + n + k\n    return g\ndef t(): return int, ValueError",
        "assert f(2)(3) == 6 and f(2)(3, k=0) == 5 and t() == (int, ValueError)",
    ),
    "takes iterators": (
        "def f(x): return [v for v in x]",
        "assert f(iter([1, 2])) == [1, 2] == f(v for v in (1, 2)) and f(range(2)) == [0, 1]\n"
        "assert f(zip('ab', [1, 2])) == [('a', 1), ('b', 2)] and f({}.items()) == []",
    ),
    "numbers": (
        "def f(x): return x\ndef g(n): return 7 ** n",
        "import math\nfor v in (0, -1, 255, -256, 1 << 70, -(1 << 70), True, 1.5, -0.0, 2j, None):\n"
        "    assert f(v) == v and type(f(v)) is type(v)\n"
        "assert math.isnan(f(math.nan)) and f(math.inf) == math.inf\n"
        "assert g(5000) == 7 ** 5000",
    ),
    "text and bytes": (
        "def f(x): return x",
        "for v in ('', 'é\\n\\0', '\\ud800', b'\\xff', bytearray(b'a'),\n"
        "          (), [], {}, set(), frozenset({1}), (1,), range(3)):\n"
        "    assert f(v) == v and type(f(v)) is type(v)",
    ),
    "nested data": (
        "def f(x): return {k: (v, [v], {v}) for k, v in x.items()}",
        "assert f({'a': 1, (1, 2): 'x'}) == {'a': (1, [1], {1}), (1, 2): ('x', ['x'], {'x'})}",
    ),
    "a built-in's name": ("def sum(a, b): return a * b", "assert sum(3, 5) == 15"),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def f(x):\n    with ThreadPoolExecutor(4) as p: return list(p.map(abs, x))",
        "assert f([-1, 2]) == [1, 2]",
    ),
    "files": (
        "import os, tempfile\ndef f(t):\n    with open('a', 'w') as g: g.write(t)\n"
        "    os.rename('a', 'b')\n    with tempfile.TemporaryDirectory() as d, open(d + '/c', 'w+') as g:\n"
        "        g.write(open('b').read()); g.seek(0)\n        return g.read(), sorted(os.listdir('.'))[-1]",
        "assert f('x')[0] == 'x'",
    ),
    "prints and reads": (
        "import sys, time\nprint('x' * 100_000)\nsys.stderr.write('y')\ndef f():\n    time.sleep(0.01)\n"
        "    return sys.stdin.read(), sys.argv, __name__",
        "assert f() == ('', [''], '__main__')",
    ),
    "deep": (
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
        "def g(n):\n    x = []\n    for _ in range(n): x = [x]\n"
        "    return x",
        "assert f(900) == 900\nassert g(100)[0][0] == g(98)",
    ),
}
