"""A small city list with the collisions of the real one."""

from __future__ import annotations

import numpy as np

from dhgsil.queries.cities import CityList
from dhgsil.regions import Regions

ROWS = (
    # code, name, aliases, districts, province, population in millions
    ("110000", "北京市", "beijing|peking", "朝阳区|海淀区|通州区|和平区", "北京市", 22.0),
    ("120000", "天津市", "tianjin", "和平区|河北区", "天津市", 14.0),
    ("211300", "朝阳市", "chaoyang", "双塔区", "辽宁省", 3.0),
    ("210100", "沈阳市", "shenyang", "和平区|沈河区", "辽宁省", 9.0),
    ("210200", "大连市", "dalian", "中山区", "辽宁省", 7.0),
    ("220100", "长春市", "changchun", "朝阳区", "吉林省", 9.0),
    ("220200", "吉林市", "", "船营区", "吉林省", 4.0),
    ("320500", "苏州市", "suzhou", "昆山市|吴江区", "江苏省", 13.0),
    ("341300", "宿州市", "suzhou", "埇桥区", "安徽省", 5.0),
    ("320100", "南京市", "nanjing", "鼓楼区", "江苏省", 9.0),
    ("320300", "徐州市", "xuzhou", "鼓楼区", "江苏省", 9.0),
    ("320600", "南通市", "nantong", "通州区", "江苏省", 8.0),
    ("442000", "中山市", "zhongshan", "", "广东省", 4.0),
    ("610100", "西安市", "xi'an", "", "陕西省", 13.0),
    ("422800", "恩施土家族苗族自治州", "", "", "湖北省", 3.0),
    ("632500", "海南藏族自治州", "", "", "青海省", 0.4),
    ("460100", "海口市", "haikou", "", "海南省", 3.0),
    ("652800", "巴音郭楞蒙古自治州", "", "", "新疆维吾尔自治区", 1.6),
    ("152500", "锡林郭勒盟", "", "", "内蒙古自治区", 1.1),
    ("7", "无省", "wusheng", "", "", 1.0),
)


def city_list(*, population: bool = True) -> CityList:
    codes, names, aliases, districts, provinces, persons = zip(*ROWS, strict=True)
    return CityList(
        Regions(codes, names, np.linspace(20, 45, len(ROWS)), np.linspace(85, 125, len(ROWS))),
        aliases=tuple(tuple(filter(None, text.split("|"))) for text in aliases),
        districts=tuple(tuple(filter(None, text.split("|"))) for text in districts),
        provinces=tuple(province or None for province in provinces),
        population=np.array(persons) if population else None,
    )
