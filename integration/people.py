"""What a holder knows of its own subscribers, one row each, and the groups they fall into.

===========  =======  ==========================================================================================
column       type     what
===========  =======  ==========================================================================================
person       int64    code of the number; every home number that is listed or makes a call
birthplace   int8     position in `integration.provinces.PROVINCES`, -1 unknown
sex          int8     0 female, 1 male, -1 unknown
birth_year   int16    -1 unknown
first_day    int16    first local day with a call in either role, 0 on the first day of the study; -1 never
last_day     int16    last such day; -1 never
weeks        int32    bit w - 1 is set if there is a call in week w, in either role
group        text     one of `GROUPS`
===========  =======  ==========================================================================================

Groups: *local*, born in the city and a call in week 1; *settled*, born elsewhere and a call in week 1; *new*, born
elsewhere, none in week 1 and one in week 2; *placebo*, born in the city, none in week 1 and one in week 2: locals who
look new and are not, for what silence alone does; *none*, everybody else.
"""

from __future__ import annotations

LOCAL, SETTLED, NEW, PLACEBO, NONE = "local", "settled", "new", "placebo", "none"
GROUPS = (LOCAL, SETTLED, NEW, PLACEBO, NONE)
FOCAL = (LOCAL, SETTLED, NEW, PLACEBO)
"""Groups whose members get rows of features."""
PEOPLE_COLUMNS = ("person", "birthplace", "sex", "birth_year", "first_day", "last_day", "weeks", "group")
