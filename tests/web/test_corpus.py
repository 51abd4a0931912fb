"""The closed web: ranking, Chinese, errors that name the row, and the two speeds that other parts count on."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from harness.errors import DataError, WebError
from harness.web.base import Hit, Page
from harness.web.corpus import CorpusWeb, read_pages
from harness.web.tokens import tokens


def search(web: CorpusWeb, query: str, limit: int = 5) -> list[Hit]:
    return asyncio.run(web.search(query, limit))


def urls(web: CorpusWeb, query: str, limit: int = 5) -> list[str]:
    return [hit.url for hit in search(web, query, limit)]


def small_web() -> CorpusWeb:
    return CorpusWeb(
        [
            Page(url="w://oak", title="Oak Mill", text="A mill on the river Tarn, built by Ada Brook. " * 30),
            Page(url="w://ada", title="Ada Brook", text="Ada Brook was born in Lindal."),
            Page(url="w://zh", title="青岚山", text="青岚山位于云溪省北部，最高峰海拔1890米。"),
            Page(url="w://zh2", title="云溪省", text="云溪省的省会是白石城。"),
            Page(url="w://alu", title="Alû", text="A spirit of the night."),
        ]
    )


def test_the_page_about_the_query_ranks_first() -> None:
    assert urls(small_web(), "Where was Ada Brook born?")[0] == "w://ada"


def test_a_snippet_is_the_first_1000_characters() -> None:
    hit = search(small_web(), "Oak Mill")[0]
    assert (hit.title, len(hit.snippet)) == ("Oak Mill", 1000)
    assert small_web().pages[0].text.startswith(hit.snippet)


def test_chinese_is_found_by_a_part_of_a_word_and_by_a_single_character() -> None:
    assert urls(small_web(), "白石城是哪里的省会")[0] == "w://zh2"
    assert urls(small_web(), "峰") == ["w://zh"]


def test_case_width_and_accents_do_not_matter() -> None:
    assert urls(small_web(), "ＡＬＵ") == urls(small_web(), "alû") == ["w://alu"]


def test_a_page_without_a_shared_token_is_no_hit() -> None:
    assert urls(small_web(), "quasar") == urls(small_web(), "?!") == urls(small_web(), "") == []


def test_equal_pages_rank_in_page_order() -> None:
    web = CorpusWeb(Page(url=f"w://{n}", title="Same", text="same words here") for n in range(40))
    assert urls(web, "same words", 40) == [f"w://{n}" for n in range(40)]


def test_the_limit_is_kept_and_zero_gives_nothing() -> None:
    web = CorpusWeb(Page(url=f"w://{n}", title="Same", text="words") for n in range(9))
    assert (len(search(web, "same", 3)), len(search(web, "same", 0))) == (3, 0)


@pytest.mark.parametrize("pages", [[], [Page(url="a", title="", text="")], [Page(url="a", title="?", text="...")]])
def test_a_web_without_a_word_answers_nothing(pages: list[Page]) -> None:
    assert urls(CorpusWeb(pages), "word") == []


def test_fetch_gives_the_whole_page_and_refuses_an_unknown_url_by_name() -> None:
    web = small_web()
    assert asyncio.run(web.fetch("w://ada")) == web.pages[1]
    with pytest.raises(WebError, match=r"no page at 'w://ada/'.*Search first"):
        asyncio.run(web.fetch("w://ada/"))


def test_two_pages_cannot_share_a_url() -> None:
    page = Page(url="w://1", title="a", text="b")
    with pytest.raises(DataError, match="w://1"):
        CorpusWeb([page, Page(url="w://1", title="c", text="d")])


def test_the_fingerprint_follows_content_and_order() -> None:
    pages = small_web().pages
    assert CorpusWeb(pages).fingerprint == small_web().fingerprint
    assert CorpusWeb(pages[::-1]).fingerprint != small_web().fingerprint
    assert CorpusWeb(pages[:-1]).fingerprint != small_web().fingerprint


def test_jsonl_pages_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "pages.jsonl"
    rows = [{"url": f"w://{n}", "title": f"T{n}", "text": f"text {n}\u2028end", "extra": 1} for n in range(3)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n", encoding="utf-8")
    assert [page.url for page in CorpusWeb.from_file(path).pages] == ["w://0", "w://1", "w://2"]


def test_rows_without_urls_are_numbered_and_titles_may_repeat(tmp_path: Path) -> None:
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps([{"title": "A", "text": "x"}, {"title": "A", "text": "y"}]), encoding="utf-8")
    assert [(page.url, page.text) for page in read_pages(path)] == [("page://0", "x"), ("page://1", "y")]


def test_an_object_of_titles_and_sentences_is_a_corpus(tmp_path: Path) -> None:
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps({"A": ["One.", " Two."]}), encoding="utf-8")
    assert read_pages(path) == [Page(url="page://0", title="A", text="One. Two.")]


GOOD_ROW = '{"url": "w://%d", "title": "t", "text": "x"}'


@pytest.mark.parametrize(
    ("row_17", "complaint"),
    [
        ("{not json", "not valid JSON"),
        ("[1, 2]", "a list .* expected an object"),
        ('{"url": "w://17", "title": "t"}', "'text' is missing, expected a string.*'url', 'title'"),
        ('{"title": "t", "text": "x"}', "'url' is missing"),
        ('{"url": "w://17", "title": "t", "text": 5}', r"'text' is a number \(5\), expected a string"),
        ('{"url": "", "title": "t", "text": "x"}', "'url' is empty"),
        ('{"url": "w://3", "title": "t", "text": "x"}', "used by row 3 already"),
    ],
)
def test_a_malformed_row_is_named_with_path_and_number(tmp_path: Path, row_17: str, complaint: str) -> None:
    path = tmp_path / "pages.jsonl"
    path.write_text("\n".join([GOOD_ROW % n for n in range(1, 17)] + [row_17, GOOD_ROW % 18]), encoding="utf-8")
    with pytest.raises(DataError, match=rf"pages\.jsonl, row 17: .*{complaint}"):
        CorpusWeb.from_file(path)


def test_a_missing_folder_like_or_undecodable_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b'{"url": "caf\xe9"}')
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for path, complaint in [(tmp_path / "no.jsonl", "no such file"), (tmp_path, "folder"), (latin, "not UTF-8"), (empty, "no page")]:
        with pytest.raises(DataError, match=complaint) as caught:
            read_pages(path)
        assert str(path) in str(caught.value)


def test_tokens_are_words_and_character_bigrams() -> None:
    assert tokens("The F-16's") == ["the", "f", "16", "s"]
    assert tokens("北京 Opera") == ["北", "北京", "京", "opera"]


def test_a_world_of_16_pages_is_indexed_and_searched_in_little_time() -> None:
    search(small_web(), "warm up the import")
    worlds = [CorpusWeb(Page(url=f"w://{n}", title=f"Page {n}", text=f"words of page {n} " * 8) for n in range(16)) for _ in range(5)]
    build = min(timed(web, "page 7") for web in worlds)
    again = min(timed(worlds[0], f"page {n}") for n in range(16))
    assert build < 0.010  # 1.6 ms where it was measured
    assert again < 0.002  # 0.06 ms


def timed(web: CorpusWeb, query: str) -> float:
    start = time.perf_counter()
    web._ranking(query)
    return time.perf_counter() - start
