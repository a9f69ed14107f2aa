"""What the readers know about words: connectors, verbs, nouns that are no objects of their own, sizes of things."""

from __future__ import annotations

import re
from typing import NamedTuple

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
    **{"team": 5, "fleet": 4, "family": 4, "band": 4, "gang": 4, "army": 9, "parade": 5, "troop": 5, "troupe": 5},
    **{"lot": 5, "lots": 5, "plenty": 5, "dozens": 24, "scores": 24, "hundreds": 30, "thousands": 30, "millions": 30},
    **{"bit": 1, "amount": 1, "kind": 1, "sort": 1, "type": 1},
}
"""Nouns before "of" that only count what follows, and how many that is: "a herd of zebras"."""
COMPARATIVES = _words("more fewer less")
SAME = _words("same equal similar")
PAIRED = _words("scissors pants trousers jeans shorts glasses sunglasses goggles binoculars headphones tweezers pliers")
UNCHANGED = _words("sheep fish deer people shrimp moose bison cattle goldfish")
PART_NOUNS = _words("top side edge corner back end middle center centre bottom front rest surface inside base foot tip")
BARE_PLURAL = 2  # the number of "cats" without a number word
BARE_SURROUNDING = 4  # the number of "cats" in "surrounded by cats"

# connectors -------------------------------------------------------------------------------------------------------

PICTURE = (
    "(?:picture|image|photo|photograph|scene|view|painting|drawing|illustration|rendering|render|sketch|canvas|frame|"
    "shot|snapshot|portrait|close up|close-up|close - up|closeup|wallpaper|artwork|art|poster|screenshot|footage|"
    "selfie|concept art|still)"
)
_THE = "(?:(?:the|a|an|its|his|her|their) )?"
_DIRECTION = "(?:top|upper|bottom|lower|left|right|middle|center|centre)"
_HAND = "(?: ?-? ?hand)?(?: side)?"
_NOT_PICTURE = f"(?! (?:the|this) {PICTURE})"
_ADVERB = "(?:(?:directly|immediately|right|just|slightly|far|partly|partially|almost|closely|perched|located) )?"


class Connector(NamedTuple):
    """Words that are read as one: what they say, whether the sides change places, and the form that the parser sees.

    `kind` is a relation, "position", "in_hand", "and", "without", "from" (material), "ignored" (with what follows) or
    "dropped". `pattern` is over lower-case tokens; of several that match, the first wins. "b below a" is "a above b".
    """

    kind: str
    flipped: bool
    form: str
    pattern: str


CONNECTORS = [
    Connector("dropped", False, "", f"(?:in|of|from|within) (?:the|this) {PICTURE}(?= |$)(?! of)"),
    Connector(
        "dropped", False, "", "in a (?:row|line|circle|pile|stack)|side by side|back to back|hand in hand|arm in arm"
    ),
    Connector("dropped", False, "", "(?:next to|beside|near|with|by|at|on|to|from|against) (?:each other|one another)"),
    Connector("dropped", False, "", "each other|one another|together(?! with)|as well(?! as)"),
    Connector(
        "in_hand",
        False,
        "here",
        "(?:in|on) (?:his|her|its|their|one|the)(?: left| right| other)? (?:hands?|arms?|mouth|lap|paws?|beak)(?! of)",
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
    **dict.fromkeys("among amongst amid amidst".split(), ("surrounded_by", False)),
    "around": ("", True),
}
"""Name of the relation that a preposition states, and whether its sides change places."""
SETTING_PREPOSITIONS = _words(
    "in at on through under during across into along from of by near over inside within beneath to onto against "
    "throughout around"
)
CLAUSES = _words("ROOT acl relcl advcl ccomp xcomp")
IGNORED_PREPOSITIONS = _words("like as during about than since until after before because while despite per via")
ABSENCE = _words("without minus except excluding no not")
POSITIONS = {
    **dict.fromkeys(["left"], "at_left"),
    **dict.fromkeys(["right"], "at_right"),
    **dict.fromkeys(["top", "upper", "background", "distance"], "at_top"),  # what is far away is high up
    **dict.fromkeys(["bottom", "lower", "foreground"], "at_bottom"),
    **dict.fromkeys(["middle", "center", "centre"], "at_middle"),
}


RELATIONS = {"left_of", "above", "under", "on", "in_front_of", "next_to", "inside", "between", "surrounded_by"}


def connectors(text: str) -> list[tuple[int, int, Connector]]:
    """Start, end and meaning of each connector of several words in `text`, lower-case tokens with spaces between."""
    return [(*match.span(), CONNECTORS[int(match.lastgroup[1:])]) for match in _CONNECTOR.finditer(text)]


# verbs ------------------------------------------------------------------------------------------------------------

_FORMS = {
    "wear": "wear wears wearing wore worn don dons donning sport sports sporting",
    "hold": (
        "hold holds holding held carry carries carrying carried grip grips gripping clutch clutches clutching "
        "grasp grasps grasping lift lifts lifting swing swings swinging wield wields wielding use uses using "
        "used eat eats eating ate drink drinks drinking drank read reads reading play plays playing played "
        "cradle cradles cradling hug hugs hugging raise raises raising bite bites biting throw throws "
        "throwing catch catches catching sip sips sipping examine examines examining open opens opening smoke "
        "smokes smoking type types typing write writes writing paint paints painting brush brushes brushing "
        "chew chews chewing lick licks licking wave waves waving offer offers offering bring brings bringing "
        "balance balances balancing fly flies"
    ),
    "share": "share shares sharing shared",
    "on": (
        "ride rides riding rode ridden straddle straddles straddling mount mounts mounting climb climbs "
        "climbing board boards boarding cover covers covering top tops topping cross crosses crossing"
    ),
    "carry": "support supports supporting supported display displays displaying adorn adorns adorning",
    "contain": "contain contains containing contained include includes including included enclose encloses",
    "surround": "surround surrounds surrounding surrounded encircle encircles encircling",
    "above": "overlook overlooks overlooking",
}
VERBS = {form: name for name, forms in _FORMS.items() for form in forms.split()}
"""What a verb says of its subject and its object; other verbs put them next to each other."""
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
PAST_FORMS = _words("strung hung slung swam sat lay stood held wore rode ate drank flew ran")
NOUNS_IN_ING = _words(
    "morning evening viking wing thing ring king string spring ceiling earring wedding drawing carving railing "
    "stocking pudding building painting lighting swing sling clothing dumpling duckling gosling sibling dressing "
    "icing frosting topping awning"
)
ALSO_NOUNS = _words("square round glass orange light gold silver plastic rubber leather violet")
SCALES = dict.fromkeys("small tiny little miniature mini".split(), 0.65)
SCALES |= dict.fromkeys("big large huge giant enormous gigantic massive".split(), 1.4)
DEFINITE = _words("the this that these those both its his her their")
SINGULAR_PRONOUNS = _words("it itself he him himself she her herself who which that this whom whose")
PLURAL_PRONOUNS = _words("they them themselves both these those")
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
    "near like next past"
)
OTHERS = _words("other others another")
PEOPLE = _words(
    "person people man woman boy girl child kid baby toddler guy lady gentleman male female adult teenager teen "
    "couple friend player worker chef cook farmer doctor nurse teacher student dancer singer musician artist "
    "painter knight king queen prince princess soldier warrior wizard witch samurai ninja astronaut cowboy pirate "
    "clown bride groom mother father mom dad grandmother grandfather grandma grandpa brother sister son daughter "
    "family crowd skier surfer skateboarder snowboarder rider runner biker cyclist driver pilot sailor fisherman "
    "fireman firefighter policeman policewoman officer waiter waitress barista businessman businesswoman elf "
    "fairy mermaid vampire robot monk priest detective hiker tourist swimmer boxer batter pitcher catcher coach "
    "actor actress model coachman librarian scientist engineer carpenter baker barber tailor blacksmith hunter "
    "archer viking geisha 1girl 1boy magician merchant shopkeeper plumber electrician ballerina paladin nun "
    "shepherd gardener butcher mechanic judge lawyer professor writer poet photographer captain butler maid saint "
    "angel demon alien cyborg android grandparent parent uncle aunt twin neighbor neighbour stranger guest "
    "customer jogger climber golfer referee goalkeeper guitarist pianist drummer violinist juggler acrobat "
    "sculptor weaver potter shopper commuter passenger conductor"
)
AT_BODY = {"head": "on_head", "foot": "in_front_of", "leg": "in_front_of", "side": "next_to", "back": "on"}
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
CLOTHES = _words(
    "hat cap dress monocle jersey suit shirt t-shirt tshirt coat raincoat overcoat jacket sweater uniform costume "
    "helmet hoodie jeans pants trousers shorts skirt scarf tie bowtie glasses sunglasses goggles crown mask "
    "gloves glove boots boot shoes shoe socks vest apron robe cloak cape kimono armor armour bikini swimsuit "
    "blouse jumper cardigan turtleneck belt necklace earrings bracelet headphones turban veil beanie beret "
    "bandana gown tuxedo overalls pajamas outfit clothes clothing sandals heels sneakers stockings wetsuit "
    "backpack headband tiara hijab fedora poncho"
)
HEADWEAR = _words(
    "hat cap helmet crown beanie beret turban headband tiara fedora headphones veil hood bandana wig goggles"
)
FACEWEAR = _words("glasses sunglasses mask goggles monocle")
NECKWEAR = _words("tie bowtie scarf necklace collar medal pendant")
FOOTWEAR = _words("shoe shoes boot boots sandals heels sneakers socks slippers skates skis ski skate")
WORN_AT = {"on_head": HEADWEAR, "on_face": FACEWEAR, "at_neck": NECKWEAR, "on_feet": FOOTWEAR}
HANDHELD = _words(
    "umbrella bag basket sword knife phone cup book flower bouquet balloon staff wand spear gun pistol rifle bow "
    "shield torch lantern camera guitar violin microphone racket racquet bat ball cane stick flag briefcase "
    "suitcase handbag purse coffee spoon fork glass bottle newspaper magazine letter kite frisbee remote "
    "surfboard skateboard broom"
)
SURFACES = _words(
    "table desk shelf tray plate bed bench counter stand sofa couch stove bookshelf platter windowsill mat "
    "nightstand dresser mantel board platform pedestal stage roof cake pizza sandwich chair rug blanket"
)
CONTAINERS = _words(
    "bowl basket box vase cup glass mug bottle jar bucket bag cage tank aquarium pot pan crate drawer fridge "
    "refrigerator nest suitcase backpack wallet pond pool bathtub sink barn jacuzzi"
)
SEATS = _words("bench sofa couch bed chair seat swing horse bike bicycle motorcycle blanket hammock stool sled throne")
ARTWORKS = _words("painting drawing sketch print poster wallpaper cover illustration logo icon sticker art artwork")
ANIMALS = _words(
    "cat dog kitten puppy bird horse cow sheep lamb goat pig bear panda lion tiger leopard cheetah wolf fox "
    "rabbit bunny mouse rat hamster squirrel deer moose elk elephant giraffe zebra rhino hippo camel llama alpaca "
    "donkey monkey ape gorilla chimpanzee kangaroo koala raccoon otter beaver badger hedgehog skunk bat owl eagle "
    "hawk falcon parrot crow raven pigeon dove duck duckling goose swan chicken hen rooster turkey penguin "
    "flamingo ostrich peacock seagull turtle tortoise frog toad lizard snake crocodile alligator dinosaur dragon "
    "unicorn fish shark whale dolphin seal octopus crab lobster bee butterfly ant spider ladybug snail pug corgi "
    "poodle bulldog labrador retriever beagle husky terrier dachshund chihuahua dalmatian hound pony foal calf "
    "bull buffalo bison yak teddy doll scarecrow snowman alien monster creature animal pet ghost skeleton zombie"
)
ANIMATE = PEOPLE | ANIMALS
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
    "render rendering resolution hd uhd hdr 4k 8k 16k bokeh artstation deviantart pixiv photography photograph "
    "photo photos focus aesthetic minimalist watercolor watercolour trending film grain lens exposure composition "
    "vibrant leica hasselblad zeiss unreal octane engine raytracing shading anime manga lineart artwork "
    "illustration wallpaper intricate details detail depth dof 35mm 50mm 85mm canon nikon kodak fujifilm polaroid "
    "iso raw masterful award winning atmosphere mood atmospheric moody colors colours palette tones tone contrast "
    "gradient texture textures digital comic cartoon pixel pixar disney ghibli 3d 2d vector isometric lowpoly "
    "surreal fantasy vaporwave cyberpunk steampunk synthwave retro noir closeup close-up macro angle shot view "
    "perspective framing pov nsfw sfw absurdres highres lowres worst best solo ambience effect effects vfx blur "
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
0.01: ant bee fly ladybug beetle coin button pea bean seed earring pill mosquito bug wasp thimble paperclip
0.01: stamp needle pin nail screw hornet tick flea raindrop snowflake crumb grain bead gem 
0.03: butterfly dragonfly snail spider strawberry cherry grape key nut marble worm dice candy olive berry
0.03: blueberry pearl gecko caterpillar moth cricket grasshopper pebble acorn walnut almond chocolate pacifier
0.03: medal badge cork dewdrop
0.08: mouse frog egg apple orange lemon peach pear tomato cupcake donut cookie mushroom hamster lizard watch cup
0.08: mug plum spoon fork wallet lipstick crab onion potato muffin flower rose tulip daisy glasses sunglasses
0.08: shell teacup lime daisies hummingbird robin finch canary newt shrew mole postcard envelope card slipper
0.08: pancake waffle biscuit macaron sushi snowball pinecone tulips lollipop cigar pipe whistle yoyo spool
0.08: teaspoon tealight jewel
0.15: bird parrot owl pigeon dove crow raven sparrow duckling squirrel rat phone book bowl knife ball shoe glove
0.15: candle bottle glass banana sandwich burger hamburger hat cap crown pineapple carrot shrimp goldfish remote
0.15: camera teapot kettle jar can croissant taco chick hedgehog notebook purse leaf pen pencil brush wrench toad
0.15: starfish hammer shoebox gun pistol dagger fan torch flashlight mask monocle tie bowtie fedora tiara cockatoo
0.15: parakeet ferret mongoose jellyfish squid seashell coral jug pitcher beaker vial candlestick figurine alarm
0.15: calculator bible diary hairbrush binoculars microphone trumpet flute bun loaf cheese steak melon coconut
0.15: papaya cabbage lettuce corn pepper eggplant
0.3: rabbit bunny cat kitten puppy duck chicken rooster turtle plate pizza cake vase lamp lantern bag backpack
0.3: pug teddy doll laptop keyboard microwave toaster violin skateboard helmet basket pillow box balloon fish
0.3: clock mirror drum bread watermelon pumpkin newspaper tray pot pan lobster monkey fox raccoon penguin hawk
0.3: falcon eagle handbag flowerpot toy football basketball frisbee octopus swan snake magazine shoes boot boots
0.3: corgi typewriter radio printer trophy globe skull pie turkey seagull beagle chihuahua cushion dress shirt
0.3: bouquet bucket tortoise goose sandcastle dachshund hen scarf gnome fairy gramophone teddies beaver badger
0.3: otter skunk weasel hare pheasant platypus koala sloth jersey hoodie trousers skirt jeans toolbox briefcase
0.3: lunchbox doormat stump urn anvil accordion banjo ukulele saxophone trombone tambourine birdcage birdhouse
0.3: bonsai wreath pinata cauldron boombox projector speaker
0.6: dog chair suitcase television tv monitor computer guitar umbrella goat lamb hydrant stool nightstand easel
0.6: crate sheep pig kite surfboard cello sink toilet barrel cactus bush baby child toddler kid peacock flamingo
0.6: harp husky labrador retriever dalmatian poodle bulldog alpaca signpost mailbox chest wheel shield sword
0.6: katana wolf tricycle rock campfire radiator orangutan chimpanzee coyote boar antelope gazelle ram calf foal
0.6: tire tyre cask unicycle sled snowboard warhammer axe rifle staff bath birdbath
1.2: person man woman boy girl table desk bicycle bike sofa couch bed bench piano door doorway window llama
1.2: throne deer lion tiger bear panda gorilla cow bull horse donkey zebra camel refrigerator fridge oven stove
1.2: wardrobe pony motorcycle scooter armchair bookshelf shelf snowman dolphin shark crocodile alligator tent
1.2: statue knight astronaut wizard witch king queen princess prince chef farmer lady guy people cabinet dresser
1.2: bathtub scarecrow mother father doctor nurse teacher soldier policeman sign unicorn moose buffalo sculpture
1.2: couple counter viking hammock spear samurai grandmother grandfather fisherman dancer boulder log fence
1.2: haystack fireplace swing elf robot cyclist worker student girlfriend boyfriend bride groom skier surfer
1.2: player cowboy pirate ninja clown waiter waitress jukebox machine walrus seal cook barista plumber
1.2: electrician magician merchant shopkeeper monk paladin ballerina teenager hiker ranger archer spartan
1.2: gladiator gardener farmhand butcher mechanic detective judge lawyer scientist professor writer poet
1.2: photographer tourist sailor captain butler maid nun priest pope saint angel demon ghost zombie vampire mummy
1.2: skeleton alien cyborg android hedge gate mantelpiece booth podium altar tombstone grave ostrich emu yak
1.2: bison ox antler hyena jaguar cheetah leopard puma kayak raft gondola stretcher mattress canopy cradle crib
1.2: swingset pulpit
2.5: car taxi van elephant giraffe rhino rhinoceros hippo hippopotamus tree jeep boat carriage canoe fountain
2.5: streetlight lamppost wagon sailboat gazebo shed dinosaur parasol staircase treehouse caravan tractor wall
2.5: igloo teepee chimney ladder slide limousine hearse ambulance rickshaw cart sleigh tank chariot hut kiosk
2.5: pavilion arch archway billboard flagpole totem crane mammoth walkway reef minivan pickup trailer tepee yurt
2.5: greenhouse
6: bus house train tram helicopter barn cottage cabin dragon shop garage palm oak pond pool stage truck
6: firetruck carousel tugboat locomotive trolley blimp chapel bungalow farmhouse silo watchtower obelisk dome
6: redwood willow cypress sequoia
15: ship building church lighthouse castle tower bridge skyscraper hill temple mansion hotel pyramid windmill
15: airplane plane jet yacht whale rocket spaceship submarine airship zeppelin liner ferry cathedral monastery
15: palace fortress rollercoaster dam aqueduct colosseum warship battleship tanker freighter factory refinery
60: mountain volcano city island cliff moon sun planet mountains glacier iceberg waterfall rainbow cloud meteor
60: comet asteroid nebula dune fjord
"""
SIZES = {noun: float(line.split(":")[0]) for line in _SIZES.strip().splitlines() for noun in line.split(":")[1].split()}
"""Rough sizes of things, in metres."""
UNKNOWN_SIZE, TOY_SIZE = 0.4, 0.3
TOYS = _words("teddy toy stuffed plush lego")


def size_of(noun: str, attributes: frozenset[str]) -> float:
    """The rough size of a thing in metres: a toy's for a teddy bear, a person's for nouns of people."""
    if not TOYS.isdisjoint(attributes):
        return TOY_SIZE
    return SIZES.get(noun, SIZES["person"] if noun in PEOPLE else UNKNOWN_SIZE)
