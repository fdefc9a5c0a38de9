"""Speed and memory of scoring: distances between a teacher's labels and an auxiliary's transcripts, by the million.

    python benchmarks/scoring.py                    # about five minutes, of which the million takes four
    python benchmarks/scoring.py --pairs 200000

Texts are code-switched lecture talk drawn from the words below (seeded): 60 mixed tokens, two in three of them Han; the
auxiliary's is the teacher's with about 15 % of its words replaced, dropped or doubled, at times in Simplified
characters, at times looping. No two pairs are alike.

1. Resident memory while a million new pairs pass through one process: after the first 100,000, and at the most after
   that. The bar is growth within 10 %.
2. Pairs per second of one core's time, by metric: `warm` scores pairs that were scored just before, `new` pairs that
   were not, of words that were. The bar, 8,000 composite distances a second, is on warm caches.
3. Pairs per second of the clock with worker processes, once they run, next to the same in this process.
"""

import argparse
import gzip
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files

import psutil
from measure import cores, median, report

from k2d_hf.scoring.text import mixed_tokens, to_simplified
from k2d_hf.validation.distance import compare_labels, label_distance
from k2d_hf.validation.parallel import ALONE_PAIRS, compare_many

TOKENS = 60
SAMPLE_EVERY = 10_000
FIRST_PAIRS = 100_000
MIB = 2**20

Pair = tuple[str, str]

# The commonest first, as in speech.
MANDARIN = """
的 是 我們 這個 就是 那 有 在 不 會 我 你 所以 可以 一個 他 要 也 都 很 說 看 用 做 到 了 去 來 大家 因為 但是 然後
其實 如果 覺得 知道 什麼 沒有 應該 已經 現在 今天 問題 方法 資料 系統 同學 老師 把 被 讓 給 跟 和 對 再 還 才 能 想
講 寫 學 好 大 小 多 少 時候 事情 東西 地方 公司 市場 產品 使用者 模型 網路 程式 電腦 學生 學校 研究 實驗 結果 數字
公式 圖片 例子 部分 概念 定義 目標 過程 關係 重要 簡單 複雜 容易 困難 特別 一般 基本 主要 不同 相同 清楚 直接 完全
可能 大概 比較 非常 稍微 剛剛 後來 以前 以後 接下來 首先 最後 介紹 解釋 討論 分析 設計 開發 訓練 測試 計算 比如說
換句話說 也就是說 有沒有 為什麼 怎麼樣 不一定 差不多 第一個 第二個 下一頁 這邊 那邊 裡面 上面 銀行 音樂 重新 重量
行為 長度 成長 數學 還是 還有 得到 樂觀 乾淨 發展 頭髮 皇后 後面 台灣 中國 美國 日本 時間 空間 語言 聲音 文字 電話
參加 參數 調整 調查 處理 傳統 便宜 方便 角色 角度 朝代 效率 率領 模樣 規模 分數 量化 測量 降低 投降 空氣 有空 相信
照相 一 二 三 四 五 六 七 八 九 十 百 千 次 種 點 條 年 月 天 分 頁 章 題 人 家 上 下 前 後 中 裡 外 只 每 該 別 跑
改 選 試 問 答 記 讀 聽
"""
ENGLISH = """
OK so model data the a to is this and of you can we use it in system training network loss function batch size paper
learning machine test set rate gradient attention transformer encoder decoder performance baseline accuracy GPU CPU
API server cache memory process thread kernel file page code bug debug demo deadline project meeting report feedback
customer market budget case study business strategy protein cell enzyme virus sample control group theorem proof
matrix vector variance regression sampling probability distribution basically actually I think know that for example
question answer slide chapter assignment final midterm email update upload download online offline input output
framework library kubernetes tokenizer embedding dropout overfitting finetune checkpoint benchmark latency
throughput U.S. don't let's it's GPT-4 COVID-19 Python C++ 3 10 2023 0.5
"""
MARKS = "，，，。。？"
RARE_SHARE = 0.05  # of the English words, from the whole of the dictionary


class _Words:
    """Words to draw from, by Zipf's law, flattened at its top."""

    def __init__(self, text: str) -> None:
        self.words = text.split()
        self.weights = list(itertools.accumulate(1 / (rank + 8) for rank in range(len(self.words))))

    def draw(self, source: random.Random, count: int) -> list[str]:
        return source.choices(self.words, cum_weights=self.weights, k=count)


class Talk:
    """An endless source of distinct pairs, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        packed = files("k2d_hf.scoring").joinpath("data", "cmudict.txt.gz").read_bytes()
        entries = (line.partition(" ")[0] for line in gzip.decompress(packed).decode("ascii").splitlines())
        self.rare = [word for word in entries if word.isalpha()]
        self.mandarin, self.english = _Words(MANDARIN), _Words(ENGLISH)
        self.tokens = {word: len(mixed_tokens(word)) for word in self.mandarin.words + self.english.words}

    def pairs(self, count: int) -> Iterator[Pair]:
        """So many new ones."""
        return (self._pair() for _ in range(count))

    def _pair(self) -> Pair:
        words = self._words()
        heard = "".join(self._misheard(words))
        return "".join(words), to_simplified(heard) if self.random.random() < 0.2 else heard

    def _words(self) -> list[str]:
        words: list[str] = []
        left = TOKENS
        while left > 0:
            clause = self._draw_mandarin(self.random.randint(1, 7)) + self._draw_english(self.random.choice((1, 1, 2)))
            for word in clause:
                if left > 0:
                    words.append(word)
                    left -= self.tokens.get(word.strip(), 1)
            if self.random.random() < 0.4:
                words.append(self.random.choice(MARKS))
        return words

    def _misheard(self, words: list[str]) -> list[str]:
        heard: list[str] = []
        for word in words:
            luck = self.random.random()
            if luck < 0.85:
                heard.append(word)
            elif luck < 0.93:
                heard += self._draw_english(1) if word.isascii() else self._draw_mandarin(1)
            elif luck < 0.97:
                heard += [word, word]
        if self.random.random() < 0.02:
            heard += words[:3] * 8
        return heard

    def _draw_mandarin(self, count: int) -> list[str]:
        return self.mandarin.draw(self.random, count)

    def _draw_english(self, count: int) -> list[str]:
        drawn = self.english.draw(self.random, count)
        return [f" {self.random.choice(self.rare) if self.random.random() < RARE_SHARE else word} " for word in drawn]


def one_core(talk: Talk, count: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Pairs per second of this process' CPU time: medians over rounds in which all sides take turns."""
    sides: dict[str, Callable[[str, str], object]] = {
        "mer": lambda teacher, auxiliary: label_distance(teacher, auxiliary, "mer"),
        "per": lambda teacher, auxiliary: label_distance(teacher, auxiliary, "per"),
        "composite": label_distance,
        "all columns": compare_labels,
    }
    known = list(talk.pairs(count))
    rates: dict[str, dict[str, list[float]]] = {name: {"warm": [], "new": []} for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            _score(known, side)
            for kind, pairs in (("warm", known), ("new", list(talk.pairs(count)))):
                started = time.process_time()
                _score(pairs, side)
                if turn:
                    rates[name][kind].append(count / (time.process_time() - started))
    return {
        name: {kind: {"median": median(of), "min": round(min(of)), "max": round(max(of))} for kind, of in kinds.items()}
        for name, kinds in rates.items()
    }


def _score(pairs: list[Pair], side: Callable[[str, str], object]) -> None:
    for teacher, auxiliary in pairs:
        side(teacher, auxiliary)


def with_workers(talk: Talk, count: int, workers: int) -> dict[str, float]:
    """Pairs per second of the clock, all columns, by this process alone and by workers once they have started.

    `dispatch_us` is what a pair costs the process that deals them out, in microseconds: what no more workers can help.
    """
    pairs = list(talk.pairs(ALONE_PAIRS + count))
    rates = {}
    dispatch = 0.0
    for side in (1, workers):
        compared = compare_many(pairs, workers=side)
        for _ in itertools.islice(compared, ALONE_PAIRS + count // 4):  # the start of the workers, and their warm-up
            pass
        clock, own = time.perf_counter(), time.process_time()
        timed = sum(1 for _ in compared)
        rates[side] = timed / (time.perf_counter() - clock)
        dispatch = 1e6 * (time.process_time() - own) / timed
    return {
        "workers": workers,
        "alone": median([rates[1]]),
        "together": median([rates[workers]]),
        "dispatch_us": median([dispatch]),
    }


def memory(talk: Talk, count: int) -> dict[str, float]:
    """Resident memory of this process while new pairs pass through it."""
    this = psutil.Process()
    resident: dict[int, float] = {}
    started = time.process_time()
    for done, _ in enumerate(compare_many(talk.pairs(count), workers=1), 1):
        if done % SAMPLE_EVERY == 0 or done == count:
            resident[done] = this.memory_info().rss / MIB
            if done % FIRST_PAIRS == 0:
                print(f"{done:,} pairs: {resident[done]:.1f} MiB", file=sys.stderr, flush=True)
    first, most = resident[FIRST_PAIRS], max(mib for done, mib in resident.items() if done >= FIRST_PAIRS)
    return {
        "pairs": count,
        "first_mib": round(first, 1),
        "end_mib": round(resident[count], 1),
        "most_mib": round(most, 1),
        "growth_percent": round(100 * (most / first - 1), 2),
        "cpu_seconds_with_generation": round(time.process_time() - started, 1),
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description="Speed and memory of scoring.")
    parser.add_argument("--pairs", type=int, default=1_000_000, help="pairs that pass while memory is watched")
    parser.add_argument("--timed-pairs", type=int, default=2_000, help="pairs of one timed run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=cores(), help="processes, all cores by default")
    arguments = parser.parse_args()
    if arguments.pairs <= FIRST_PAIRS:
        parser.error(f"--pairs {arguments.pairs}: give more than {FIRST_PAIRS}")
    talk = Talk(seed=0)
    lengths = [len(mixed_tokens(teacher)) for teacher, _ in talk.pairs(1000)]
    figures = {
        "tokens_a_text": median(lengths),
        "memory": memory(talk, arguments.pairs),  # first, while there is no freed memory to grow into
        "pairs_per_second_of_one_core": one_core(talk, arguments.timed_pairs, arguments.rounds),
        "pairs_per_second_with_workers": with_workers(talk, 20 * arguments.timed_pairs, arguments.workers),
    }
    report("scoring", figures, packages=("k2d_hf", "rapidfuzz", "opencc", "pypinyin", "regex"))


if __name__ == "__main__":
    main()
