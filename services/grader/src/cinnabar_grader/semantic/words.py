"""Closed word classes. Short on purpose: what a language cannot do without, no topic words."""

from typing import Final

__all__ = ["CHINESE_FUNCTION", "ENGLISH_FUNCTION", "ENGLISH_NEGATION", "OTHER_FUNCTION"]

ENGLISH_NEGATION: Final = frozenset(
    "not no never none nothing neither nor cannot without false incorrect untrue wrong".split()
)

ENGLISH_FUNCTION: Final = frozenset(
    """a an the this that these those it its he she they them their theirs his her hers him we us our ours you your yours
    i me my mine who whom whose which what when where why how is are was were be been being am do does did done doing
    have has had having will would shall should can could may might must and or but if then else so because since
    although though while as than of in on at by for to from with into onto over under about between among through
    during before after above below up down out off again further here there all any both each few more most other
    some such only own same too very just also not no nor never don't doesn't isn't aren't won't can't cannot it's
    that's i'm there's e.g i.e etc s t via per upon within without one's itself themselves get gets got""".split()
)

OTHER_FUNCTION: Final = (
    frozenset(
        "der die das und ist nicht ein eine einer eines den dem des mit von zu auf für sich auch wird werden oder im".split()
    ),
    frozenset(
        "le la les un une des et est de du dans que qui pour par sur ne pas au aux avec sont ce cette il elle".split()
    ),
    frozenset(
        "el la los las un una y es de del en que por para con no se su al son como lo más o este esta".split()
    ),
    frozenset(
        "il lo la i gli le un una e è di del della in che per con non si da al sono come più questo nel".split()
    ),
    frozenset(
        "o a os as um uma e é de do da em que por para com não se no na ao são como mais dos das".split()
    ),
    frozenset(
        "de het een en is van in dat die niet op te zijn met voor aan er om als ook worden wordt door".split()
    ),
)
"""German, French, Spanish, Italian, Portuguese, Dutch."""

CHINESE_FUNCTION: Final = frozenset(
    "的是在了和与及或于由把被将对从为以可会能要就也都而则所其此这那着过到个有不地得"
)
