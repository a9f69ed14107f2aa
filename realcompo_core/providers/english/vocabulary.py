"""What the readers know about words: connectors, verbs, nouns that are no objects of their own, sizes of things."""

from __future__ import annotations

import re
from typing import NamedTuple

from ...text.words import IRREGULAR
from ...text.words import NUMBERS as SMALL_NUMBERS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _numbers(start: int, step: int, words: str) -> dict[str, int]:
    return {word: start + step * i for i, word in enumerate(words.split())}


# numbers ----------------------------------------------------------------------------------------------------------

NUMBERS = {
    **SMALL_NUMBERS,
    **_numbers(13, 1, "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"),
    **_numbers(20, 10, "twenty thirty forty fifty sixty seventy eighty ninety"),
    **{"no": 0, "zero": 0, "trio": 3, "threesome": 3, "quartet": 4, "twin": 2, "twins": 2, "half": 1},
    **{"hundred": 100, "thousand": 1000, "million": 10**6},
}
VAGUE = {
    **{"few": 3, "some": 3, "several": 3, "various": 3, "multiple": 3, "more": 3, "fewer": 2, "less": 2},
    **{"many": 5, "numerous": 5, "countless": 30},
}
"""What is taken where the prompt gives no number."""
COLLECTIVES = {
    **{"pair": 2, "pairs": 4, "couple": 2, "trio": 3, "quartet": 4, "dozen": 12, "half": 1, "set": 3, "group": 3},
    **{"groups": 6, "row": 3, "rows": 6, "line": 3, "stack": 3, "stacks": 6, "pile": 3, "piles": 6, "bunch": 3},
    **{"handful": 4, "number": 3, "variety": 3, "assortment": 4, "collection": 4, "selection": 4, "cluster": 4},
    **{"herd": 4, "flock": 4, "pack": 4, "swarm": 6, "school": 5, "litter": 4, "pride": 3, "gaggle": 4, "crowd": 8},
    **{
        "team": 5,
        "fleet": 4,
        "family": 4,
        "band": 4,
        "gang": 4,
        "army": 9,
        "circle": 6,
        "parade": 5,
        "troop": 5,
        "troupe": 5,
    },
    **{"lot": 5, "lots": 5, "plenty": 5, "dozens": 24, "scores": 24, "hundreds": 30, "thousands": 30, "millions": 30},
    **{"bit": 1, "amount": 1, "kind": 1, "sort": 1, "type": 1},
}
"""Nouns before "of" that only count what follows, and how many that is: "a herd of zebras"."""
COMPARATIVES = _words("more fewer less")
SAME = _words("same equal similar")
PAIRED = _words(
    "scissors pants trousers jeans shorts glasses sunglasses goggles binoculars headphones tweezers pliers stairs"
)
UNCHANGED = _words("sheep fish deer people shrimp moose bison cattle goldfish")
PART_NOUNS = _words(
    "top side edge corner back end middle center centre bottom front rest surface inside base foot tip rim lid handle "
    "brim ledge arm armrest backrest seat lap bonnet hood deck bow stern roof wall step doorstep porch trunk branch"
)
OWN_PARTS = PART_NOUNS | _words("sill saddle mast spout cover surface")
"""What "its" makes a place of something named before: "on its rim"."""
BARE_PLURAL = 2  # the number of "cats" without a number word
BARE_SURROUNDING = 4  # the number of "cats" in "surrounded by cats"

# connectors -------------------------------------------------------------------------------------------------------

PICTURE = (
    "(?:picture|image|photo|photograph|scene|view|painting|drawing|illustration|rendering|render|sketch|canvas|frame|"
    "shot|snapshot|portrait|close up|close-up|close - up|closeup|wallpaper|artwork|art|poster|screenshot|footage|"
    "selfie|concept art|still)"
)
_THE = "(?:(?:the|a|an|its|his|her|their) )?"
_COUNT = "(?:one|two|three|four|five|six|several|many|even|\\d+)"
_OWN = "(?:its|his|her|their)"
_DIRECTION = "(?:top|upper|bottom|lower|left|right|middle|center|centre)"
_HAND = "(?: ?-? ?hand)?(?: side)?"
_NOT_PICTURE = f"(?! (?:the|this) {PICTURE})"
_ADVERB = "(?:(?:directly|immediately|right|just|slightly|far|partly|partially|almost|closely|perched|located) )?"


class Connector(NamedTuple):
    """Words that are read as one: what they say, whether the sides change places, and the form that the parser sees.

    `kind` is a relation, "position", "in_hand", a key of `OWN_PLACES`, "flanking", "and", "without", "from"
    (material), "ignored" (with what follows) or "dropped". `pattern` is over lower-case tokens; of several that match,
    the first wins. "b below a" is "a above b".
    """

    kind: str
    flipped: bool
    form: str
    pattern: str


CONNECTORS = [
    Connector("dropped", False, "", "(?:(?:viewed|seen|shot) )?from (?:behind|above|below|(?:the )?side)(?= [,.;]|$)"),
    Connector("dropped", False, "", f"(?:in|of|from|within) (?:the|this) {PICTURE}(?= |$)(?! of)"),
    Connector(
        "dropped",
        False,
        "",
        f"(?:in|into)(?: a| {_COUNT})?(?: neat| straight| long| small)? "
        "(?:row|line|circle|pile|stack|column|queue|half circle)s?(?! of)"
        "|side by side|back to back|hand in hand|arm in arm|face to face",
    ),
    Connector(
        "dropped",
        False,
        "",
        "(?:across from|opposite|facing|next to|beside|near|with|by|at|on|to|from|against) (?:each other|one another)",
    ),
    Connector("dropped", False, "", "each other|one another|together(?! with)|as well(?! as)"),
    Connector(
        "in_hand",
        False,
        "here",
        "(?:in|on) (?:his|her|its|their|one|the)(?: left| right| other)? (?:hands?|arms?|mouth|lap|paws?|beak)(?! of)"
        "|in (?:his|her|its|the) other(?= [,.;]|$)",
    ),
    Connector(
        "left_of",
        False,
        "beside",
        f"(?:(?:on|to|at|towards?) )?{_THE}(?:(?:far|immediate|direct|very) )?left{_HAND} of{_NOT_PICTURE}",
    ),
    Connector(
        "left_of",
        True,
        "beside",
        f"(?:(?:on|to|at|towards?) )?{_THE}(?:(?:far|immediate|direct|very) )?right{_HAND} of{_NOT_PICTURE}",
    ),
    Connector("on", False, "on", f"(?:on|at|in|over)(?: the| very)* (?:top|surface) of{_NOT_PICTURE}"),
    Connector("own_left", False, "here", f"(?:on|to|at) {_OWN} (?:immediate )?left{_HAND}(?! of)"),
    Connector("own_right", False, "here", f"(?:on|to|at) {_OWN} (?:immediate )?right{_HAND}(?! of)"),
    Connector("own_top", False, "here", f"(?:on|at)(?: {_OWN})? top(?! of)(?! (?:left|right|half|part|shelf))"),
    Connector("own_front", False, "here", "in front(?! of)"),
    Connector("own_side", False, "here", f"(?:at|by) {_OWN} sides?(?! of)"),
    Connector("in_front_of", True, "behind", "(?:out )?from behind"),
    Connector("under", False, "under", "(?:out )?from (?:under|underneath|beneath)"),
    Connector("above", True, "under", f"(?:on|at|to|in)(?: the| very)* bottom of{_NOT_PICTURE}"),
    Connector("inside", False, "in", f"(?:in|at|on) the (?:middle|center|centre|midst|inside) of{_NOT_PICTURE}"),
    Connector("in_front_of", False, "behind", "in(?: the)? front of|in(?: the)? foreground of"),
    Connector("in_front_of", True, "behind", "(?:in|at|on)(?: the)? (?:back|rear|background) of|in back of"),
    Connector(
        "in_front_of",
        True,
        "behind",
        "(?:partly |half )?(?:hidden|obscured|blocked|covered up|concealed) (?:by|behind)",
    ),
    Connector("under", False, "under", "in the (?:shade|shadow) of"),
    Connector("flanking", False, "beside", "(?:on|at) (?:either|both|each|opposite|two) (?:sides?|ends?) of"),
    Connector("next_to", False, "beside", "(?:on|by|at|to|along)(?: the| one| either| a)? sides? of"),
    Connector("next_to", False, "beside", "(?:on|at|by|near) the (?:edge|end|corner|foot|base|tip) of"),
    Connector(
        "position",
        False,
        "here",
        rf"(?:on|in|at|to|near|towards?)(?: the)?(?: very| far)? {_DIRECTION}(?:(?: - | |-|, ){_DIRECTION})*{_HAND}"
        rf"(?: corner| half| part| edge| third| side)?(?: of (?:the|this) {PICTURE}|(?! of\b)(?! - )(?! {PICTURE}))",
    ),
    Connector("position", False, "here", "in the (?:foreground|background|distance)(?! of)"),
    Connector(
        "surrounded_by",
        False,
        "among",
        "(?:surrounded|encircled|ringed|flanked) (?:by|with)|in the middle of several",
    ),
    Connector("surrounded_by", True, "around", "all around|gathered around|surrounding|encircling"),
    Connector("inside", True, "with", "filled with|full of|containing|contains|stuffed with"),
    Connector("between", False, "between", "in between"),
    Connector(
        "on",
        True,
        "with",
        "(?:covered|decorated|topped|adorned|sprinkled|garnished|crowned|cluttered|laden|loaded) (?:in|with|by)",
    ),
    Connector("inside", False, "in", "inside of|from inside|out of"),
    Connector("on", False, "on", "down on|up on|on to"),
    Connector(
        "next_to",
        False,
        "beside",
        "next to|close to|near to|adjacent to|right by|up to|up against|across from|away from",
    ),
    Connector(
        "and",
        False,
        "and",
        "along with|together with|accompanied by|as well as|and also|in addition to|plus|alongside with",
    ),
    Connector(
        "without", False, "without", "with (?:no|zero)|free of|devoid of|lacking|but no|minus|and no|without any"
    ),
    Connector("from", False, "of", "made (?:out )?of|made from|composed of|carved from|carved out of"),
    Connector(
        "ignored",
        False,
        "like",
        "(?:dressed|shaped|decorated|disguised|known) (?:as|like)|in the (?:shape|form|style) of",
    ),
    Connector(
        "ignored", False, "like", "looking like|looks like|as if|such as|because of|due to|instead of|rather than"
    ),
]
_CONNECTOR = re.compile(
    "|".join(rf"(?P<c{i}>(?<!\S){_ADVERB}(?:{pattern})(?!\S))" for i, (_, _, _, pattern) in enumerate(CONNECTORS))
)
PREPOSITIONS: dict[str, tuple[str, bool] | None] = {
    **dict.fromkeys("on onto upon atop down up".split(), ("on", False)),
    **dict.fromkeys("in inside within into through".split(), ("inside", False)),
    **dict.fromkeys("under underneath beneath".split(), ("under", False)),
    "below": ("above", True),
    **dict.fromkeys("above over".split(), ("above", False)),
    **dict.fromkeys("behind beyond".split(), ("in_front_of", True)),
    **dict.fromkeys(
        "beside near nearby by at against across along alongside opposite toward towards to past from off "
        "next for".split(),
        ("next_to", False),
    ),
    "between": ("between", False),
    "before": ("in_front_of", False),
    **dict.fromkeys("among amongst amid amidst".split(), ("surrounded_by", False)),
    "around": ("", True),
}
"""Name of the relation that a preposition states, and whether its sides change places."""
SETTING_PREPOSITIONS = _words(
    "in at on through under during across into along from of by near over inside within beneath to onto against "
    "throughout around"
)
CLAUSES = _words("ROOT acl relcl advcl ccomp xcomp")
IGNORED_PREPOSITIONS = _words("like as during about than since until after because while despite per via")
ABSENCE = _words("neither without minus except excluding no not")
POSITIONS = {
    **dict.fromkeys(["left"], "at_left"),
    **dict.fromkeys(["right"], "at_right"),
    **dict.fromkeys(["top", "upper", "background", "distance"], "at_top"),  # what is far away is high up
    **dict.fromkeys(["bottom", "lower", "foreground"], "at_bottom"),
    **dict.fromkeys(["middle", "center", "centre"], "at_middle"),
}


OWN_PLACES = {
    "own_left": ("left_of", False),
    "own_right": ("left_of", True),
    "own_top": ("on", False),
    "own_front": ("in_front_of", False),
    "own_side": ("next_to", False),
}
"""Connectors that are about something named before: "on its left", "with a cherry on top"."""
ADVERBIAL = _words("inside underneath beneath below under above behind beside nearby alongside atop in on")
"""Prepositions that may stand without an object: "a box with a kitten inside"."""
PLACING = _words(
    "put puts putting place places placing placed set sets setting lay lays laying drop drops dropping pour pours "
    "pouring stack stacks stacking arrange arranges arranging balance balances balancing lower lowers lowering load "
    "loads loading pack packs packing plant plants planting hang hangs hanging flip flips flipping fry fries frying "
    "cook cooks cooking stir stirs stirring roll rolls rolling stuff stuffs stuffing keep keeps keeping serve serves "
    "serving"
)
"""Verbs whose object, not whose subject, is where the words behind it say."""
USING = _words(
    "type types typing typed play plays playing played work works working worked write writes writing wrote draw draws "
    "drawing talk talks talking talked speak speaks speaking text texting call calling chat chatting perform performs "
    "performing performed watch watching"
)
"""Verbs whose "on" names a tool: "typing on a laptop"."""
HANGING = _words("hang hangs hanging hung dangle dangles dangling dangled suspended")
TABLES = _words("table desk counter bar chessboard board campfire fire picnic-table")
LEFT_OR_RIGHT = {"left": "at_left", "leftmost": "at_left", "right": "at_right", "rightmost": "at_right"}


RELATIONS = {"left_of", "above", "under", "on", "in_front_of", "next_to", "inside", "between", "surrounded_by"}
RELATIONS |= {"flanking"}
PARTICLES = _words("up down on in onto into")  # of verbs that still say where: "climbed up a tree"


def connectors(text: str) -> list[tuple[int, int, Connector]]:
    """Start, end and meaning of each connector of several words in `text`, lower-case tokens with spaces between."""
    found = [(*match.span(), CONNECTORS[int(match.lastgroup[1:])]) for match in _CONNECTOR.finditer(text)]
    return [(start, end, each) for start, end, each in found if each.kind != "position" or not _goes_on(text, end)]


def _goes_on(text: str, end: int) -> bool:
    """Whether a noun follows: "in the left box"."""
    following = text[end:].split()
    return bool(following) and following[0] in NOUNS and text[:end].split()[-1] in POSITIONS


# verbs ------------------------------------------------------------------------------------------------------------

_FORMS = {
    "wear": "wear wears wearing wore worn don dons donning sport sports sporting",
    "hold": (
        "hold holds holding held carry carries carrying carried grip grips gripping clutch clutches clutching grasp "
        "grasps grasping lift lifts lifting swing swings swinging wield wields wielding use uses using used eat eats "
        "eating ate drink drinks drinking drank read reads reading play plays playing played cradle cradles cradling "
        "hug hugs hugging raise raises raising bite bites biting throw throws throwing catch catches catching sip "
        "sips sipping examine examines examining open opens opening smoke smokes smoking type types typing write "
        "writes writing paint paints painting brush brushes brushing chew chews chewing lick licks licking wave waves "
        "waving offer offers offering bring brings bringing balance balances balancing balanced fly flies flew "
        "gripped clutched grasped lifted swung wielded cradled hugged raised bit threw caught sipped examined opened "
        "smoked typed wrote painted brushed chewed licked waved offered brought pour pours pouring poured peel peels "
        "peeling peeled juggle juggles juggling juggled squeeze squeezes squeezing squeezed shoulder shoulders "
        "shouldering fold folds folding folded sew sews sewing knit knits knitting hand hands handing handed give "
        "gives giving gave steer steers steering toss tosses tossing tossed"
    ),
    "share": "share shares sharing shared",
    "on": (
        "ride rides riding rode ridden straddle straddles straddling mount mounts mounting climb climbs "
        "climbing climbed board boards boarding boarded cover covers covering covered top tops topping topped cross "
        "crosses crossing crossed mounted straddled"
    ),
    "carry": "support supports supporting supported display displays displaying adorn adorns adorning",
    "contain": "contain contains containing contained include includes including included enclose encloses",
    "surround": "surround surrounds surrounding surrounded encircle encircles encircling",
    "above": "overlook overlooks overlooking",
}
VERBS = {form: name for name, forms in _FORMS.items() for form in forms.split()}
"""What a verb says of its subject and its object; other verbs put them next to each other."""
HOLD = _words("hold holds holding held")
HAVE = _words("have has having had own owns owning feature features featuring featured get gets got")
SHOW = _words("show shows showing depict depicts depicting display portray portrays portraying see sees seen contain")

# nouns ------------------------------------------------------------------------------------------------------------

ADJECTIVES = _words(
    "red orange yellow green cyan blue purple violet pink brown black white gray grey gold golden silver beige "
    "maroon teal turquoise magenta dark light bright pale colorful colourful small tiny little big large huge "
    "giant tall short long wide narrow thin thick round square old young new wooden metal metallic plastic glass "
    "leather rubber fluffy furry shiny striped spotted plaid empty open closed hot cold wet dry clean dirty "
    "smooth rough beautiful cute vintage modern rusty soft hard bright dull sleek cozy crisp fresh fragrant "
    "dreamy epic sharp"
)
COLOURS = _words(
    "red yellow green blue purple violet pink brown black white gray grey cyan magenta teal turquoise maroon beige"
)
PAST_FORMS = _words(
    "strung hung slung swam sat lay stood held wore rode ate drank flew ran fell rose sprang slept leapt crept swung "
    "spun sank shone dug hid fed bit blew drove threw caught led sang wept knelt clung stuck swept dove ran drew grew"
)
VERB_BASES = frozenset(
    (
        "admire approach arrive ask attack balance bark bask bathe bend bite blink blow bounce bow bray break build "
        "burn buzz carry catch charge chase cheer chew chop circle clap climb cling cook cough cower crawl creep "
        "cross crouch cry cuddle curl cut dance dangle dart dash dig dive doze drag drift drink drip drive drop duck "
        "eat embrace emerge enjoy enter examine fall feed fetch fight fish flap float flow flutter fly follow frolic "
        "gallop gather gaze giggle glare gleam glide glow grab graze greet grin grip grow guard hang help hide hit "
        "hold hop hover howl hug hum hunt hurry jog juggle jump keep kick kiss kneel knit land laugh launch lead lean "
        "leap leave lick lie lift light linger listen live loom lounge lunge lurk march meditate meow milk mow munch "
        "nap nestle nibble nod nuzzle open paddle paint park pass peck peek peel peer perch perform pet photograph "
        "pick plant play point poke pose pounce pour pray present prowl pull push race raise reach read recline relax "
        "repair rest ride rise roam roar roast roll row run sail salute sew shake sharpen shine shoot shout sing sip "
        "sit skate sketch skip sleep slide slither smell smile smoke snarl sniff snooze snore soar speak spin splash "
        "spray spread squat stalk stand stare start steer stick stir stretch stride stroll study surf sway sweep swim "
        "swing take talk teach tend throw tick tie tiptoe toss touch tow trot tumble turn type wade wag wait walk "
        "wander wash watch water wave wear weave weep whisper whistle wink work wrap write yawn"
    ).split()
)
ACTIONS = {re.sub(r"(?<=[^aeiou])ys$", "ies", re.sub(r"(?<=sh|ch|ss|zz)s$", "es", verb + "s")) for verb in VERB_BASES}
"""What one thing does: verbs in the form of "an owl stares"."""
NOUNS_IN_ING = _words(
    "morning evening viking wing thing ring king string spring ceiling earring wedding drawing carving railing "
    "stocking pudding building painting lighting swing sling clothing dumpling duckling gosling sibling dressing "
    "icing frosting topping awning"
)
ALSO_NOUNS = _words("square round glass orange light gold silver plastic rubber leather violet")
SCALES = dict.fromkeys("small tiny little miniature mini".split(), 0.65)
SCALES |= dict.fromkeys("baby newborn".split(), 0.65)
SCALES |= dict.fromkeys("big large huge giant enormous gigantic massive".split(), 1.4)
GAMES = _words(
    "chess tennis soccer football basketball baseball volleyball badminton hockey golf rugby cricket poker checkers "
    "billiards snooker darts dominoes cards tag catch fetch hopscotch pool ping-pong lacrosse polo squash games"
)
"""What is played and no thing then."""
DEFINITE = _words("the this that these those both its his her their")
SINGULAR_PRONOUNS = _words("it itself he him himself she her herself who which that this whom whose")
PLURAL_PRONOUNS = _words("they them themselves both these those")
HE, SHE = _words("he him himself his"), _words("she her herself")
JOINTS = _words("and or nor & + plus")
PRONOUNS = SINGULAR_PRONOUNS | PLURAL_PRONOUNS
SINGULAR_DETERMINERS = _words("a an one another each every this that")
FUNCTION_WORDS = (
    PRONOUNS
    | JOINTS
    | _words(
        "is are was were be been being am has have had do does did can could will would may might must there here "
        "not so very too also just while when where because as than then but if though although of with without "
        "who whom what"
    )
)
BE = _words("is are was were be been being am 's 're")
ODD_LABELS = _words("amod appos dep nmod npadvmod advmod ROOT conj pobj dobj nsubj attr compound")
ADVERBS = _words(
    "together away outside inside nearby alone ahead back down up around left right asleep awake afloat aside "
    "apart overhead underneath above below behind beyond everywhere somewhere upright upside sideways forward "
    "backward home indoors outdoors upstairs downstairs again once twice already still now today tonight yet even "
    "only almost half open closed shut full empty alive ready afraid in out on off over through along across by "
    "near like next past far high low backwards forwards"
)
FEMALE = _words(
    "woman girl lady mother mom grandmother grandma sister daughter queen princess witch actress waitress bride aunt "
    "niece wife girlfriend female nun maid ballerina businesswoman policewoman mermaid geisha empress duchess heroine "
    "sorceress bridesmaid maiden shepherdess milkmaid seamstress schoolgirl stewardess horsewoman hen cow mare 1girl"
)
MALE = _words(
    "man boy guy gentleman father dad grandfather grandpa brother son king prince wizard waiter groom uncle nephew "
    "husband boyfriend male monk priest businessman policeman fireman fisherman cowboy butler emperor duke sultan "
    "schoolboy horseman postman mailman lumberjack stuntman cameraman rooster bull stallion 1boy"
)
OTHERS = _words("other others another")
PEOPLE = _words(
    "traveler traveller wanderer adventurer inventor owner toddler person people man woman boy girl child kid baby "
    "guy lady gentleman male female adult teenager teen couple friend player worker chef cook farmer doctor nurse "
    "teacher student dancer singer musician artist painter knight king queen prince princess soldier warrior wizard "
    "witch samurai ninja astronaut cowboy pirate clown bride groom mother father mom dad grandmother grandfather "
    "grandma grandpa brother sister son daughter family crowd skier surfer skateboarder snowboarder rider runner "
    "biker cyclist driver pilot sailor fisherman fireman firefighter policeman policewoman officer waiter waitress "
    "barista businessman businesswoman elf fairy mermaid vampire robot monk priest detective hiker tourist swimmer "
    "boxer batter pitcher catcher coach actor actress model coachman librarian scientist engineer carpenter baker "
    "barber tailor blacksmith hunter archer viking geisha 1girl 1boy magician merchant shopkeeper plumber electrician "
    "ballerina paladin nun shepherd gardener butcher mechanic judge lawyer professor writer poet photographer captain "
    "butler maid saint angel demon alien cyborg android grandparent parent uncle aunt twin neighbor neighbour "
    "stranger guest customer jogger climber golfer referee goalkeeper guitarist pianist drummer violinist juggler "
    "acrobat sculptor weaver potter shopper commuter passenger conductor activist athlete aviator banshee barbarian "
    "bartender bassist beggar bishop bodybuilder bodyguard boss bricklayer bridesmaid busker calligrapher cameraman "
    "carver cashier cellist centaur classmate clerk cobbler colleague companion composer cop cosmonaut courier cousin "
    "crafter crew cyclops dentist deputy diver druid duchess duke dwarf emperor employee empress explorer fencer "
    "florist flutist giant goalie goblin godfather graduate granddaughter grandson grocer guard gymnast handler "
    "hermit hero heroine hobbit horseman horsewoman human husband imam infant jester jockey journalist lifeguard "
    "lumberjack mage maiden mailman manager marine mason midwife milkmaid mime miner minotaur nephew newlywed niece "
    "official ogre opponent orc paramedic partner patient peddler pedestrian pedlar performer pharaoh pharmacist "
    "philosopher pilgrim postman pupil puppeteer quarterback rabbi rancher ranger reaper receptionist reporter "
    "ringmaster ronin roofer saxophonist scholar schoolboy schoolgirl seamstress secretary shepherdess sheriff shogun "
    "sibling skater sorcerer sorceress sprinter stepmother steward stewardess stuntman sultan superhero surgeon "
    "teammate therapist trader troll trucker trumpeter vendor vet veterinarian villain visitor volunteer warlock "
    "welder werewolf wife wizardess woodcarver woodcutter wraith wrestler zookeeper"
)
AT_BODY = {
    "head": "on_head",
    "neck": "at_neck",
    "nose": "on_head",
    "foot": "in_front_of",
    "leg": "in_front_of",
    "side": "next_to",
    "back": "on",
}
"""Where something at a part of a body is; else it reaches over the edge, as what is held."""
BODY = _words(
    "hair hairs eye eyes face head hand hands arm arms leg legs foot feet finger fingers nose mouth lip lips ear "
    "ears beard mustache moustache freckle freckles skin cheek cheeks tooth teeth tongue smile bangs ponytail "
    "braid braids bun pigtails fringe makeup eyeliner wrinkles tattoo tattoos breasts chest body back shoulder "
    "shoulders neck waist hips thigh thighs knee knees tail tails wing wings horn horns paw paws fur whiskers "
    "mane beak claw claws hoof hooves snout feather feathers muscles abs expression eyebrows eyelashes pupils "
    "fang fangs haircut hairstyle dreadlocks twintails ahoge scar scars stubble nails toes lap"
)
"""Parts of a body: not objects beside the person or animal that has them."""
ALSO_THINGS = _words("chest feather feathers horn skull nail nails bun trunk shell")
"""Of these, what stands alone too."""
CLOTHES = _words(
    "spacesuit tracksuit snowsuit trenchcoat sweatshirt sunhat nightcap headdress hat cap dress monocle jersey suit "
    "shirt t-shirt tshirt coat raincoat overcoat jacket sweater uniform costume helmet hoodie jeans pants trousers "
    "shorts skirt scarf tie bowtie glasses sunglasses goggles crown mask gloves glove boots boot shoes shoe socks "
    "vest apron robe cloak cape kimono armor armour bikini swimsuit blouse jumper cardigan turtleneck belt necklace "
    "earrings bracelet headphones turban veil beanie beret bandana gown tuxedo overalls pajamas outfit clothes "
    "clothing sandals heels sneakers stockings wetsuit backpack headband tiara hijab fedora poncho blazer bonnet "
    "brooch clogs collar earring flippers garland harness heel hood jumpsuit leggings lei locket mitten mittens "
    "nightgown pyjamas sandal sash shawl skates slipper slippers sneaker sock sombrero tights toga tunic waistcoat "
    "wig"
)
HEADWEAR = _words(
    "hat cap helmet crown beanie beret turban headband tiara fedora headphones veil hood bandana wig goggles"
)
FACEWEAR = _words("glasses sunglasses mask goggles monocle")
NECKWEAR = _words("tie bowtie scarf necklace collar medal pendant")
FOOTWEAR = _words(
    "shoe shoes boot boots sandals heels sneakers socks slippers skates skis ski skate sandal heel sneaker sock slipper"
)
PAIRS = FOOTWEAR | _words("glove mitten earring chopstick crutch dumbbell maraca candlestick bookend")
"""What two of stand side by side."""
WORN_AT = {"on_head": HEADWEAR, "on_face": FACEWEAR, "at_neck": NECKWEAR, "on_feet": FOOTWEAR}
HANDHELD = _words(
    "umbrella bag basket sword knife phone cup book flower bouquet balloon staff wand spear gun pistol rifle bow "
    "shield torch lantern camera guitar violin microphone racket racquet bat ball cane stick flag briefcase suitcase "
    "handbag purse coffee spoon fork glass bottle newspaper magazine letter kite frisbee remote surfboard skateboard "
    "broom apple axe banana banjo baseball basketball binoculars bowl brush bucket burger cigar cigarette dagger "
    "donut doughnut envelope fan flute football gift hammer harp hatchet hotdog katana kettle lance laptop lollipop "
    "lunchbox map medal mug net notebook oar paddle paintbrush parasol pen pencil pipe pitchfork pizza plate popsicle "
    "present pumpkin rake rope rose sandwich saxophone scroll shovel smartphone snowball sunflower tablet teapot "
    "teddy telescope toy tray trident trophy trumpet tulip whip wrench"
)
SURFACES = _words(
    "table desk shelf tray plate bed bench counter stand sofa couch stove bookshelf platter windowsill mat nightstand "
    "dresser mantel board platform pedestal stage roof cake pizza sandwich chair rug blanket altar barrel bookcase "
    "cabinet carpet countertop crate cupboard cushion doormat fence footstool ledge log mantelpiece ottoman pillow "
    "placemat podium railing rock saucer sill stool stump tablecloth workbench"
)
CONTAINERS = _words(
    "birdcage doghouse birdhouse dollhouse mailbox trashcan dumpster fishtank bowl basket box vase cup glass mug "
    "bottle jar bucket bag cage tank aquarium pot pan crate drawer fridge refrigerator nest suitcase backpack wallet "
    "pond pool bathtub sink barn jacuzzi barrel can cart carton casket cauldron chest closet coffin cradle crib "
    "envelope fishbowl flowerpot goblet hamper jug kennel kettle locker pail pitcher planter pouch purse sack shoebox "
    "stroller teapot terrarium tin toolbox trough trunk tub wagon wheelbarrow"
)
SEATS = _words("bench sofa couch bed chair seat swing horse bike bicycle motorcycle blanket hammock stool sled throne")
ARTWORKS = _words("painting drawing sketch print poster wallpaper cover illustration logo icon sticker art artwork")
ANIMALS = _words(
    "cat dog kitten puppy bird horse cow sheep lamb goat pig bear panda lion tiger leopard cheetah wolf fox rabbit "
    "bunny mouse rat hamster squirrel deer moose elk elephant giraffe zebra rhino hippo camel llama alpaca donkey "
    "monkey ape gorilla chimpanzee kangaroo koala raccoon otter beaver badger hedgehog skunk bat owl eagle hawk "
    "falcon parrot crow raven pigeon dove duck duckling goose swan chicken hen rooster turkey penguin flamingo "
    "ostrich peacock seagull turtle tortoise frog toad lizard snake crocodile alligator dinosaur dragon unicorn fish "
    "shark whale dolphin seal octopus crab lobster bee butterfly ant spider ladybug snail pug corgi poodle bulldog "
    "labrador retriever beagle husky terrier dachshund chihuahua dalmatian hound pony foal calf bull buffalo bison "
    "yak teddy doll scarecrow snowman alien monster creature animal pet ghost skeleton zombie albatross anaconda "
    "anteater antelope armadillo baboon barracuda beetle blackbird bluebird boa boar bobcat bullfrog bumblebee "
    "buzzard canary cardinal caribou caterpillar catfish centipede chameleon chick chickadee chimp chipmunk clam "
    "cobra cockatiel cockatoo collie colt condor cormorant coyote crane cricket cub dingo doe dragonfly dugong eel "
    "egret emu ewe fawn ferret finch firefly gazelle gecko gerbil gibbon gnat gnu golem gosling grasshopper greyhound "
    "griffin groundhog gull hare heifer heron hippopotamus hog honeybee hornet hummingbird humpback hydra hyena ibex "
    "ibis iguana impala jackal jaguar jay jellyfish joey kestrel kingfisher koi komodo kraken ladybird lemur lovebird "
    "lynx macaw magpie malamute mammoth manatee mandrill mare marlin marmoset marmot mastiff mastodon meerkat mink "
    "minnow mole mongoose mosquito moth mule narwhal newt ocelot okapi opossum orangutan orca oryx osprey oyster "
    "parakeet partridge pegasus pelican pheasant phoenix piglet piranha pitbull platypus porcupine porpoise possum "
    "puffin puma python quail ram ray reindeer rhinoceros robin rottweiler salamander salmon samoyed scorpion "
    "seahorse shrew sloth slug spaniel sparrow squid stag stallion starfish starling steer stegosaurus stingray stoat "
    "stork sturgeon swallow swordfish tadpole tapir tern toucan triceratops trout tuna tyrannosaurus vulture wallaby "
    "walrus warthog wasp weasel wildebeest wolfhound wombat woodpecker worm wren wyvern"
)
ANIMATE = PEOPLE | ANIMALS
AMBIENT = _words(
    "sunlight moonlight daylight candlelight sunshine starlight lamplight storm thunderstorm blizzard sky horizon"
)
"""What fills a picture or lights it."""
FALLING = _words("light rain snow fog mist smoke dust")
"""The same, where nothing stands before it: "rain falls on a street"."""
TETHERS = _words("leash lead tether chain string")
SCENERY = _words(
    "blossom petal leaf flower cloud star tree bubble sparkle snowflake feather firework lantern butterfly"
)
"""What tags in the plural name as surroundings: "falling petals"."""
PLACES = _words(
    "scene park street road beach forest jungle kitchen room bedroom bathroom garden yard backyard field meadow "
    "city town village countryside desert sea ocean lake river water pond sky air snow grass lawn ground floor "
    "wall space studio office restaurant library classroom night day daytime nighttime sunset sunrise dusk dawn "
    "rain fog mist background backdrop landscape mountains woods savanna savannah pasture market cafe cafeteria "
    "bar shop store supermarket mall museum gallery church cathedral stadium court arena gym garage basement "
    "attic hallway corridor alley sidewalk pavement highway lot harbor harbour shore shoreline coast seaside "
    "hillside slope valley canyon cave cliffside swamp marsh tundra plain plains prairie farmland countryside "
    "runway zoo aquarium circus playground theater theatre cinema concert hospital airport station universe "
    "galaxy void winter summer autumn spring fall morning evening afternoon noon sunlight moonlight darkness "
    "shade sun wind breeze sand dirt mud soil downtown suburb outdoors indoors wilderness rainforest campsite "
    "cemetery graveyard dungeon ballroom hall apartment interior exterior environment surroundings neighborhood "
    "neighbourhood cityscape horizon driveway patio porch enclosure paddock surf waves crosswalk intersection "
    "world area place spot location distance"
)
STYLE = _words(
    "quality masterpiece lighting detailed cinematic photorealistic realistic hyperrealistic realism style styles "
    "render rendering resolution hd uhd hdr 4k 8k 16k bokeh artstation deviantart pixiv photography photograph photo "
    "photos focus aesthetic minimalist watercolor watercolour trending film grain lens exposure composition vibrant "
    "leica hasselblad zeiss unreal octane engine raytracing shading anime manga lineart artwork illustration "
    "wallpaper intricate details detail depth dof 35mm 50mm 85mm canon nikon kodak fujifilm polaroid iso raw "
    "masterful award winning atmosphere mood atmospheric moody colors colours palette tones tone contrast gradient "
    "texture textures digital comic cartoon pixel pixar disney ghibli 3d 2d vector isometric lowpoly surreal fantasy "
    "vaporwave cyberpunk steampunk synthwave retro noir closeup close-up macro angle shot view perspective framing "
    "pov nsfw sfw absurdres highres lowres worst best solo ambience effect effects vfx blur design shadow shadows "
    "blurry rays volumetric subsurface scattering reflections reflection professional stunning gorgeous"
)
ABSTRACT = _words(
    "time way kind sort look gaze bite nap rest ride walk run joy happiness sadness anger love peace fun idea "
    "mood number numbers amount front back side left right top bottom middle center centre others thing things "
    "something anything nothing everything someone somebody anyone everyone nobody part parts pose position end "
    "beginning style color colour size shape form pattern motion action use order sunshine weather stargazing "
    "step attention care sleep bit life past future memory memories story stories dream reality heaven silence "
    "sound music noise smell taste touch feeling feelings speed height length width weight age year years day "
    "days hour hours minute minutes moment conversation discussion meeting trip journey vacation holiday party "
    "event performance show competition race tale tales telling direction name manner appearance presence help "
    "hope luck view scene case fact example reason result date effort practice focus charge possession midair "
    "mid-air air flight lead tow progress bloom sale display comfort growth survival passage energy tension "
    "massage beauty elegance grandeur talk plan plans jump jumps protest tour ritual sense senses aroma glow "
    "ambiance ambience retreat escape hustle bustle sophistication luxury history sensation fragrance scent "
    "flavor flavour warmth coldness aura essence spirit soul mind thought thoughts wisdom knowledge skill skills "
    "strength power freedom hope truth beauty magic mystery wonder awe delight pleasure pain fear courage pride "
    "shame grief despair excitement enthusiasm curiosity confidence determination concentration photoshoot picnic "
    "stroll jog swim lesson class course session ceremony celebration festival parade battle fight war tenderness "
    "affection chaos order disorder rhythm tempo melody song prayer wish goal mission task job career breath "
    "heartbeat yawn laugh laughter cry scream shout whisper voice speech word words language meaning background "
    "foreground distance silhouette outline contour reflection awestruck witness evidence tradition culture "
    "society community generation century decade era epoch season weekend week month midnight noon twilight "
    "you me us i we viewer seating recipe play work home outside inside outdoors indoors upside unison harmony"
)
"""Nouns that name nothing that has a place of its own."""

_SIZES = """
0.01: ant bee fly ladybug beetle coin button pea bean seed earring pill mosquito bug wasp thimble paperclip stamp needle
0.01: pin nail screw hornet flea raindrop snowflake crumb grain bead gem die thumbtack tack rivet bolt dandruff
0.01: cranberry lentil ruby sapphire emerald gemstone clover gnat penny dime cent token keyhole eraser battery
0.03: butterfly dragonfly snail spider strawberry cherry grape key nut marble worm dice candy olive berry blueberry
0.03: pearl gecko caterpillar moth cricket grasshopper pebble acorn walnut almond chocolate pacifier medal badge cork
0.03: dewdrop fig date raisin cashew hazelnut peanut radish sprout petal blossom firefly bumblebee honeybee scorpion
0.03: centipede slug tadpole minnow dart domino chip pawn rook matchbox matchstick match brooch locket cufflink padlock
0.03: ladybird feather truffle gumdrop marshmallow cracker pretzel keychain lightbulb bulb bubble pinwheel stick
0.08: mouse frog egg apple orange lemon peach pear tomato cupcake donut cookie mushroom hamster lizard watch cup mug
0.08: plum spoon fork wallet lipstick crab onion potato muffin flower rose tulip daisy glasses sunglasses shell teacup
0.08: lime daisies hummingbird robin finch canary newt shrew mole postcard envelope card slipper pancake waffle biscuit
0.08: macaron sushi snowball pinecone tulips lollipop cigar pipe whistle yoyo spool teaspoon tealight jewel doughnut
0.08: bagel kiwi nectarine apricot tangerine mandarin clementine avocado garlic saucer goblet chalice tumbler spatula
0.08: ladle tongs scissors comb razor toothbrush toothpaste soap sponge tape stapler glue mousetrap swallow wren
0.08: cardinal bluebird chickadee blackbird bat gerbil guinea chipmunk chameleon iguana clam mussel oyster seahorse
0.08: brownie tart fry scone dumpling spork chopstick chopsticks tissue napkin ticket receipt passport compass sparkler
0.08: orchid lily carnation sunflower poppy violet lavender dandelion iris peony lilac daffodil marigold petunia
0.08: hibiscus lotus rosebud bud coaster dreidel harmonica kazoo castanet conch sock mitten mittens goggles eyeglasses
0.08: sunglass headset earbuds earphone joystick gamepad syringe thermometer stopwatch wristwatch pocketwatch cellphone
0.08: smartphone pager controller shotglass ornament bauble
0.15: bird parrot owl pigeon dove crow raven sparrow duckling squirrel rat phone book bowl knife ball shoe glove candle
0.15: bottle glass banana sandwich burger hamburger hat cap crown pineapple carrot shrimp goldfish remote camera teapot
0.15: kettle jar can croissant taco chick hedgehog notebook purse leaf pen pencil brush wrench toad starfish hammer
0.15: wineglass shoebox gun pistol dagger fan torch flashlight mask monocle tie bowtie fedora tiara cockatoo parakeet
0.15: ferret
0.15: mongoose jellyfish squid seashell coral jug pitcher beaker vial candlestick figurine alarm calculator bible diary
0.15: hairbrush binoculars microphone trumpet flute bun loaf cheese steak melon coconut papaya cabbage lettuce corn
0.15: pepper eggplant woodpecker magpie jay starling kingfisher cockatiel lovebird puffin gull tern quail partridge
0.15: turtledove stoat marmot groundhog bullfrog salamander carp trout salmon piranha catfish koi grapefruit pomegranate
0.15: mango aubergine zucchini cucumber broccoli cauliflower artichoke leek celery turnip beet squash gourd baguette
0.15: roll wrap burrito hotdog sausage pancakes waffles omelet omelette salad soup sundae milkshake smoothie cocktail
0.15: coffee tea juice beer wine soda latte cappuccino milk thermos flask tin canister carton whisk mixer grater
0.15: corkscrew scroll letter journal sketchbook notepad map pamphlet brochure menu tablet ipad kindle screwdriver
0.15: pliers saw chisel trowel drill mallet hatchet sickle horseshoe plaque wig bonnet sneaker sandal heel clog loafer
0.15: pouch clutch iron hairdryer curler perfume lotion shampoo paintbrush palette puck baseball softball volleyball
0.15: soccerball beachball puppet marionette nutcracker rattle statuette snowglobe chessboard hourglass magnet telescope
0.15: monocular microscope lens candelabra incense stocking bell handbell gong maraca ocarina recorder piccolo oboe
0.15: clarinet slice piece cheeseburger toadstool urchin stone brick tile
0.3: rabbit bunny cat kitten puppy duck chicken rooster turtle plate pizza cake vase lamp lantern bag backpack pug teddy
0.3: doll laptop keyboard microwave toaster violin skateboard helmet basket pillow box balloon fish clock mirror drum
0.3: bread watermelon pumpkin newspaper tray pot pan lobster monkey fox raccoon penguin hawk falcon eagle handbag
0.3: flowerpot toy football basketball frisbee octopus swan snake magazine shoes boot boots corgi typewriter radio
0.3: printer trophy globe skull pie turkey seagull beagle chihuahua cushion dress shirt bouquet bucket tortoise goose
0.3: sandcastle dachshund hen scarf gnome fairy gramophone teddies beaver badger otter skunk weasel hare pheasant
0.3: platypus koala sloth jersey hoodie trousers skirt jeans toolbox briefcase lunchbox doormat stump urn anvil
0.3: accordion banjo ukulele saxophone trombone tambourine birdcage birdhouse bonsai wreath pinata cauldron boombox
0.3: projector speaker heron stork pelican cormorant ibis egret vulture condor buzzard osprey kestrel albatross toucan
0.3: macaw guineafowl piglet fawn cub joey lynx bobcat ocelot armadillo porcupine anteater opossum possum lemur gibbon
0.3: marmoset meerkat mandrill baboon mink wombat wallaby gosling eel ray stingray tuna ham casserole lasagna pudding
0.3: gingerbread platter wok skillet saucepan colander blender juicer dish decanter carafe samovar basin hamper pail
0.3: plant houseplant fern planter terrarium fishbowl aquarium succulent cantaloupe honeydew sombrero turban hood
0.3: headphones jacket sweater vest coat raincoat uniform shawl poncho apron towel cloth tablecloth satchel tote
0.3: knapsack luggage parcel package gift present piggybank phonograph record vinyl stereo camcorder router console
0.3: chandelier lampshade metronome frame picture portrait painting poster calendar whiteboard chalkboard canvas banner
0.3: flag boomerang bow quiver arrow crossbow racket paddle club dumbbell kettlebell trampoline drone vacuum broom mop
0.3: dustpan shovel spade rake pitchfork hoe pickaxe chainsaw sledgehammer hose sprinkler mandolin lute lyre fiddle
0.3: viola tuba bagpipes bongo bongos cymbal cymbals snare xylophone blanket quilt nest beehive birdfeeder skate skates
0.3: ski slippers rollerblade rollerskate lock suit crutch crutches dough tub
0.6: dog chair suitcase television tv monitor computer guitar umbrella goat lamb hydrant stool nightstand easel crate
0.6: sheep pig kite surfboard cello sink toilet barrel cactus bush baby child toddler kid peacock flamingo harp husky
0.6: labrador retriever dalmatian poodle bulldog alpaca signpost mailbox chest wheel shield sword katana wolf tricycle
0.6: rock campfire radiator orangutan chimpanzee coyote boar antelope gazelle ram calf foal tire tyre cask unicycle sled
0.6: snowboard warhammer axe rifle staff bath birdbath collie hound greyhound rottweiler shepherd mastiff terrier
0.6: pitbull spaniel wolfhound malamute samoyed ewe hog jackal dingo warthog tapir kangaroo swordfish sturgeon stroller
0.6: pram buggy highchair bassinet bassinette rocker tripod lectern sundial trashcan bin dustbin trash wheelbarrow
0.6: lawnmower mower barbecue bbq grill bonfire firepit shrub rosebush sapling tumbleweed trunk keg tuffet ottoman
0.6: footstool pouf beanbag seat subwoofer amplifier copier safe heater loom anchor propeller drumset drums timpani
0.6: sousaphone didgeridoo bassoon bass bodyboard skis toboggan hoverboard segway parachute lance trident scythe pole
0.6: screen urinal bidet washbasin snowdrift headstone
1.2: person man woman boy girl table desk bicycle bike sofa couch bed bench piano door doorway window llama throne deer
1.2: lion tiger bear panda gorilla cow bull horse donkey zebra camel refrigerator fridge oven stove wardrobe pony
1.2: motorcycle scooter armchair bookshelf shelf snowman dolphin shark crocodile alligator tent statue knight astronaut
1.2: wizard witch king queen princess prince chef farmer lady guy people cabinet dresser bathtub scarecrow mother father
1.2: doctor nurse teacher soldier policeman sign unicorn moose buffalo sculpture couple counter viking hammock spear
1.2: samurai grandmother grandfather fisherman dancer boulder log fence haystack fireplace swing elf robot cyclist
1.2: worker student girlfriend boyfriend bride groom skier surfer player cowboy pirate ninja clown waiter waitress
1.2: jukebox machine walrus seal cook barista plumber electrician magician merchant shopkeeper monk paladin ballerina
1.2: teenager hiker ranger archer spartan gladiator gardener farmhand butcher mechanic detective judge lawyer scientist
1.2: professor writer poet photographer tourist sailor captain butler maid nun priest pope saint angel demon ghost
1.2: zombie vampire mummy skeleton alien cyborg android hedge gate mantelpiece booth podium altar tombstone grave
1.2: ostrich emu yak bison ox antler hyena jaguar cheetah leopard puma kayak raft gondola stretcher mattress canopy
1.2: cradle crib swingset pulpit potter drummer singer conductor violinist pianist guitarist juggler acrobat geisha
1.2: actor actress director tailor blacksmith weaver baker librarian pilot rider choir daughter son sister brother stag
1.2: doe reindeer caribou elk wildebeest gnu impala oryx ibex okapi mule stallion mare colt heifer steer sealion manatee
1.2: dugong porpoise narwhal barracuda marlin python boa anaconda cobra komodo bookcase sideboard hutch buffet cupboard
1.2: closet chiffonier vanity loveseat recliner chaise futon daybed bunk bunkbed countertop freezer dishwasher dryer
1.2: hearth mantel mantle organ harpsichord drumkit arcade pinball phonebooth streetsign meter turnstile atm well trough
1.2: manger stall coop kennel doghouse seesaw sandbox treadmill motorbike moped vespa trike quad atv jetski paddleboard
1.2: rowboat dinghy float wheelchair gurney coffin casket sarcophagus tomb tarp workbench trellis pergola curtain
1.2: curtains windowsill rug carpet mat tapestry blackboard armor snowmobile
2.5: stagecoach moon sun planet cloud rainbow comet meteor saturn mars jupiter
2.5: car taxi van elephant giraffe rhino rhinoceros hippo hippopotamus tree jeep boat carriage canoe fountain
2.5: streetlight lamppost wagon sailboat gazebo shed dinosaur parasol staircase treehouse caravan tractor wall igloo
2.5: teepee chimney ladder slide limousine hearse ambulance rickshaw cart sleigh tank chariot hut kiosk pavilion arch
2.5: archway billboard flagpole totem crane mammoth walkway reef minivan pickup trailer tepee yurt greenhouse suv sedan
2.5: coupe convertible hatchback roadster limo cab minibus campervan camper rv motorhome speedboat motorboat lifeboat
2.5: pontoon catamaran hovercraft bulldozer excavator forklift backhoe steamroller combine harvester plow snowplow
2.5: cannon catapult trebuchet bandstand carport tollbooth outhouse playhouse cabana tiki tipi wigwam streetlamp
2.5: stoplight pillar monolith waterwheel orca humpback tyrannosaurus triceratops stegosaurus brontosaurus mastodon
2.5: golem griffin pegasus hydra kraken phoenix wyvern birch maple elm aspen spruce fir pine bamboo banyan baobab
2.5: shrubbery stairs steps stairway escalator pier dock jetty wharf footbridge scaffold scaffolding waterslide
2.5: grandstand bleachers
6: road street river garden courtyard alley stream creek sidewalk canal farm
15: park field lake forest railway beach meadow harbor
60: sea ocean sky valley desert city town village
6: bus house train tram helicopter barn cottage cabin dragon shop garage palm oak pond pool stage truck firetruck
6: carousel tugboat locomotive trolley blimp chapel bungalow farmhouse silo watchtower obelisk dome redwood willow
6: cypress sequoia chalet villa townhouse apartment inn tavern pub diner cafe bakery schoolhouse shrine pagoda monument
6: barnyard stable stables hangar warehouse depot firehouse semi lorry streetcar monorail subway caboose freight biplane
6: glider ufo satellite spacecraft shuttle capsule lander ketch schooner trawler barge ferryboat houseboat riverboat
6: steamboat gallows drawbridge boathouse lodge sauna watermill mill turret belltower clocktower ferris
15: ship building church lighthouse castle tower bridge skyscraper hill temple mansion hotel pyramid windmill airplane
15: plane jet yacht whale rocket spaceship submarine airship zeppelin liner ferry cathedral monastery palace fortress
15: rollercoaster dam aqueduct colosseum warship battleship tanker freighter factory refinery basilica mosque synagogue
15: citadel fort stronghold coliseum arena stadium parliament capitol courthouse townhall university school college
15: highrise condo galleon frigate destroyer cruiser carrier viaduct overpass powerplant reactor observatory planetarium
15: colonnade
60: mountain volcano city island cliff mountains glacier iceberg waterfall
60: asteroid nebula dune fjord hillside ridge peak summit crater canyon gorge geyser tornado hurricane aurora
60: constellation galaxy lagoon atoll
"""
SIZES = {noun: float(line.split(":")[0]) for line in _SIZES.strip().splitlines() for noun in line.split(":")[1].split()}
"""Rough sizes of things, in metres."""
UNKNOWN_SIZE, TOY_SIZE = 0.4, 0.3
TOYS = _words("teddy toy stuffed plush lego miniature model figurine doll")
KINDS = {"berry": 0.03, "nut": 0.02, "fish": 0.3, "bird": 0.2, "fruit": 0.1, "ball": 0.2, "man": 1.7, "woman": 1.7}
"""Rough sizes of what a compound's last part names: blackberry, catfish, milkman."""
SHORTEST_PART = 4  # letters of a known noun that may end an unknown one: "houseboat", but not "oscar"


def plurals(noun: str) -> tuple[str, ...]:
    """How the plural of a noun may be written."""
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return (noun[:-1] + "ies",)
    return (noun + "es",) if noun.endswith(("s", "sh", "ch", "x", "z")) else (noun + "s",)


def known_size(noun: str, attributes: frozenset[str] = frozenset()) -> float | None:
    """The rough size of a thing in metres, None if nothing tells.

    A teddy bear has a toy's, "a street light" that of a streetlight, a houseboat that of a boat, people a person's.
    """
    if not TOYS.isdisjoint(attributes):
        return TOY_SIZE
    written = [other + noun for other in attributes if other + noun in SIZES]
    if written or noun in SIZES:
        return SIZES[written[0] if written else noun]
    if noun in PEOPLE:
        return SIZES["person"]
    parts = (noun[at:] for at in range(1, len(noun)))
    part = next((part for part in parts if part in KINDS or (len(part) >= SHORTEST_PART and part in SIZES)), None)
    return None if part is None else KINDS.get(part) or SIZES[part]


def size_of(noun: str, attributes: frozenset[str]) -> float:
    """`known_size`, or a middling one."""
    return known_size(noun, attributes) or UNKNOWN_SIZE


ANIMATES = ANIMATE | {form for noun in ANIMATE for form in plurals(noun)} | {"people", "men", "women", "children"}
NOUNS = (
    frozenset(SIZES) | {"light"} | PEOPLE | ANIMALS | PLACES | CLOTHES | HANDHELD | SURFACES | CONTAINERS | SEATS | BODY
)
NOUNS |= {form for noun in NOUNS for form in plurals(noun)} | {
    form for form, noun in IRREGULAR.items() if noun in NOUNS
}
"""Words that name what can be seen, in either number."""
