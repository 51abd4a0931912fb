"""Units of measure, currencies and counters: what they are called, what they measure, how many base units one is.

Only what is exact by definition is converted (km to m, pounds to grams). Temperatures and currencies are never converted,
and a name with two meanings in answers (``m`` for million, ``pound``, ``¥`` beside 元) is kept apart or left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from judges.text import CJK


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """``names`` are folded; ``factor`` is its size in the base unit of ``dimension``."""

    names: tuple[str, ...]
    dimension: str
    factor: Fraction = Fraction(1)


def find_unit(name: str) -> Unit | None:
    """The unit of a folded name, or None."""
    return _BY_NAME.get(name.replace("^", "").replace(".", "").strip())


def mentions(question: str, unit: Unit) -> bool:
    """Whether a folded question names the unit. Single letters do not count, ``$`` and ``%`` do."""
    return any(_mentioned(question, name) for name in unit.names if len(name) > 1 or not name.isascii() or not name.isalpha())


def rivals(question: str, unit: Unit) -> bool:
    """Whether the question names another unit of the same dimension, so that a bare number could be in either."""
    return any(other is not unit and mentions(question, other) for other in _UNITS if other.dimension == unit.dimension)


def _mentioned(question: str, name: str) -> bool:
    if not name.isascii() or not name[0].isalpha():
        return name in question
    return re.search(rf"(?<![^\W{CJK}]){re.escape(name)}(?![^\W{CJK}])", question) is not None


def _unit(names: str, dimension: str, factor: str | int = 1) -> Unit:
    return Unit(names=tuple(name.strip() for name in names.split(",")), dimension=dimension, factor=Fraction(factor))


_UNITS = (
    _unit("mm, millimeter, millimeters, millimetre, millimetres, 毫米", "length", "1/1000"),
    _unit("cm, centimeter, centimeters, centimetre, centimetres, 厘米, 公分", "length", "1/100"),
    _unit("m, meter, meters, metre, metres, 米, 公尺", "length"),
    _unit("km, kms, kilometer, kilometers, kilometre, kilometres, 公里, 千米", "length", 1000),
    _unit("inch, inches, 英寸", "length", "254/10000"),
    _unit("ft, foot, feet, 英尺", "length", "3048/10000"),
    _unit("yd, yard, yards, 码", "length", "9144/10000"),
    _unit("mi, mile, miles, 英里", "length", "1609344/1000"),
    _unit("light year, light years, light-years, light-year, ly, 光年", "light years"),
    _unit("mg, milligram, milligrams, 毫克", "mass", "1/1000"),
    _unit("g, gram, grams, 克", "mass"),
    _unit("kg, kgs, kilogram, kilograms, kilo, kilos, 公斤, 千克", "mass", 1000),
    _unit("t, ton, tons, tonne, tonnes, 吨", "tons"),
    _unit("lb, lbs, 磅", "mass", "45359237/100000"),
    _unit("oz, ounce, ounces, 盎司", "mass", "45359237/1600000"),
    _unit("ms, millisecond, milliseconds, 毫秒", "time", "1/1000"),
    _unit("s, sec, secs, second, seconds, 秒, 秒钟", "time"),
    _unit("min, mins, minute, minutes, 分钟", "time", 60),
    _unit("h, hr, hrs, hour, hours, 小时, 个小时, 钟头", "time", 3600),
    _unit("day, days, 天", "time", 86400),
    _unit("week, weeks, 周, 星期, 个星期", "time", 604800),
    _unit("month, months, 个月", "months"),
    _unit("year, years, yr, yrs, 年", "months", 12),
    _unit("years old, year old, year-old, 岁, 周岁", "age"),
    _unit("m2, sq m, square meter, square meters, square metre, square metres, 平方米, 平米", "area"),
    _unit("ha, hectare, hectares, 公顷", "area", 10_000),
    _unit("km2, sq km, square kilometer, square kilometers, square kilometre, square kilometres, 平方公里, 平方千米", "area", 1_000_000),
    _unit("sq mi, square mile, square miles, 平方英里", "area", "2589988110336/1000000"),
    _unit("acre, acres, 英亩", "acres"),
    _unit("ml, milliliter, milliliters, millilitre, millilitres, 毫升", "volume", "1/1000"),
    _unit("l, liter, liters, litre, litres, 升", "volume"),
    _unit("m3, cubic meter, cubic meters, cubic metre, cubic metres, 立方米", "volume", 1000),
    _unit("km/h, kmh, kph, kilometers per hour, kilometres per hour, 公里/小时, 千米/小时, 公里每小时", "speed", "1000/3600"),
    _unit("m/s, meters per second, metres per second, 米/秒, 米每秒", "speed"),
    _unit("mph, miles per hour, 英里/小时", "speed", "1609344/3600000"),
    _unit("°c, c, degrees celsius, degree celsius, celsius, 摄氏度", "celsius"),
    _unit("°f, f, degrees fahrenheit, degree fahrenheit, fahrenheit, 华氏度", "fahrenheit"),
    _unit("k, kelvin, kelvins, 开尔文", "kelvin"),
    _unit("°, degree, degrees, 度", "degrees"),
    _unit("%, percent, per cent, percentage, 百分率, 百分比, 百分之", "percent"),
    _unit("$, usd, us$, us dollar, us dollars, dollar, dollars, 美元, 美金", "money usd"),
    _unit("€, eur, euro, euros, 欧元", "money eur"),
    _unit("£, gbp, british pounds, 英镑", "money gbp"),
    _unit("元, 人民币, rmb, cny, yuan, 块, 块钱", "money cny"),
    _unit("日元, jpy, yen", "money jpy"),
    _unit("¥", "money ¥"),
    _unit("hz, hertz, 赫兹", "frequency"),
    _unit("khz, kilohertz, 千赫", "frequency", 1000),
    _unit("mhz, megahertz, 兆赫", "frequency", 1_000_000),
    _unit("w, watt, watts, 瓦", "power"),
    _unit("kw, kilowatt, kilowatts, 千瓦", "power", 1000),
    _unit("mw, megawatt, megawatts, 兆瓦", "power", 1_000_000),
    _unit("人, 名, 位, 口, people, persons, person", "count of people"),
    _unit("个", "count of things"),
    _unit("次, 回, 遍, times", "count of times"),
)
_BY_NAME: Mapping[str, Unit] = {name: unit for unit in _UNITS for name in unit.names}
