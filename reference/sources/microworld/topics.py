"""What the microworld talks about: topics with their nouns, and sentence frames.

A frame is a pattern of words, separated by spaces:

    {slot}      a name or a phrase: its kind, with a digit where a frame has two of a kind
    [verb]      a verb in the clause's tense, agreeing in number with its subject: the first slot, or after "that" the
    first slot there
    [verb+]     the same where the subject is plural whatever its slot ("{person} and {person2} [meet+]")
    [verb-]     the same where it is singular
    <his>       his, her, its or their: the subject's

`{noun}` is a noun phrase of the topic, `{bare}` the same without article, `{nouns}` in the plural without article,
`{job}` what a person does. `{anyone}` is whoever may act: a person, a company, a club, a body or a country, by its
short name, so that the context leaves open what it is.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    singular: str
    plural: str


@dataclass(frozen=True)
class Frame:
    """A clause with open slots. What else a clause can be told as (another language, a headline, a question) belongs
    here too.
    """

    english: str

    @property
    def is_sentence(self) -> bool:
        """Not a line of a table ("Weston 3-1 Harlow")."""
        return self.english.endswith(".")


@dataclass(frozen=True)
class Topic:
    name: str
    nouns: tuple[Noun, ...]
    adjectives: tuple[str, ...]
    jobs: tuple[str, ...]
    frames: tuple[Frame, ...]


_IRREGULAR_PLURALS = {"policeman": "policemen", "crisis": "crises", "thief": "thieves"}
_IRREGULAR_PASTS = {
    "win": "won",
    "beat": "beat",
    "lose": "lost",
    "say": "said",
    "fall": "fell",
    "rise": "rose",
    "buy": "bought",
    "sell": "sold",
    "find": "found",
    "leave": "left",
    "meet": "met",
    "tell": "told",
    "take": "took",
    "see": "saw",
    "lead": "led",
    "write": "wrote",
    "show": "showed",
    "cut": "cut",
    "hit": "hit",
    "begin": "began",
    "draw": "drew",
    "steal": "stole",
    "sing": "sang",
    "cost": "cost",
    "send": "sent",
    "give": "gave",
    "know": "knew",
}


def plural_of(noun: str) -> str:
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "sh", "ch", "x")) else f"{noun}s"


def past(verb: str, *, plural: bool) -> str:
    if verb == "be":
        return "were" if plural else "was"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return f"{verb[:-1]}ied"
    return _IRREGULAR_PASTS.get(verb) or (f"{verb}d" if verb.endswith("e") else f"{verb}ed")


def present(verb: str, *, plural: bool) -> str:
    if verb == "be":
        return "are" if plural else "is"
    if plural:
        return verb
    if verb.endswith("y") and verb[-2] not in "aeou":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(("s", "sh", "ch", "x", "o")) else f"{verb}s"


def _topic(name: str, *, nouns: str, adjectives: str, jobs: str, frames: str) -> Topic:
    return Topic(
        name,
        tuple(Noun(noun, plural_of(noun)) for noun in nouns.split()),
        tuple(adjectives.split()),
        tuple(job.replace("_", " ") for job in jobs.split()),
        tuple(Frame(" ".join(line.split())) for line in frames.strip().splitlines()),
    )


TOPICS = (
    _topic(
        "football",
        nouns="match goal season game penalty defeat final stadium team loss injury player ball league crowd",
        adjectives="late early narrow home young famous wet final bitter easy",
        jobs="striker goalkeeper coach captain defender midfielder referee manager",
        frames="""
            {club} [beat] {club2} {score} in {noun} {when} .
            {club} [sign] {job} {person} from {club2} for {money} .
            {job} {person} [score] {number} goals against {club} {when} .
            {club} [lose] {noun} at {town} after {noun2} .
            {person} , who [play] for {club} , [win] the {event} {when} .
            {club} coach {person} [praise] <his> {bare} .
            {people} {job} {person} [miss] the {event} because of {noun} .
            {club} [lead] {noun} with {number} points , ahead of {club2} .
            {noun} between {club} and {club2} [begin] late because of the rain .
            {person} [leave] {anyone} {when} .
            {club} and {club2} [draw+] {score} at {town} .
            {club} {score} {club2} {score2}
            {day} : {club} {club2} {town}
        """,
    ),
    _topic(
        "finance",
        nouns="share profit bank loan market price loss rate deal analyst investor company dollar bond quarter",
        adjectives="strong weak quarterly cheap risky net higher lower annual foreign",
        jobs="chairman analyst trader economist director broker banker",
        frames="""
            shares of {company} [rise+] {percent} percent {when} .
            {company} [buy] {company2} for {money} .
            {company} [report] {noun} of {money} {when} .
            {company} , based in {town} , [cut] {number} jobs in {country} .
            {job} {person} of {company} [expect] {noun} .
            {noun} [fall] {percent} percent in {country} {when} .
            {anyone} [fall] {percent} percent after {noun} .
            {company} [name] {person} as <his> {job} .
            the {body} [raise] {noun} by {percent} percent .
            {company} [sell] <his> {town} {bare} to {company2} .
            {people} {nouns} [be+] {adjective} {when} .
            {anyone} [deny] that {company} [plan] {noun} .
            {company} {company2} {percent} {percent2}
        """,
    ),
    _topic(
        "politics",
        nouns="election vote law party leader government tax reform treaty policy parliament crisis border campaign",
        adjectives="new local national public secret difficult popular former official open",
        jobs="president minister mayor senator ambassador spokesman",
        frames="""
            {people} {job} {person} [meet] {person2} in {town} {when} .
            {anyone} [say] {noun} will help {country} .
            {country} and {country2} [sign+] the {event} in {town} .
            {job} {person} [win] {noun} with {percent} percent of the vote .
            the {body} [reject] {noun} {when} .
            {person} , {job} of {country} , [promise] {noun} .
            {anyone} [accuse] {anyone2} of {noun} .
            {noun} in {country} [begin] {when} .
            {people} and {people2} {nouns} [meet+] near {landmark} .
            {person} [tell] {anyone} that {noun} [be] {adjective} .
            {people} {person} [lead] <his> {bare} in {town} .
            {country} [send] {number} troops to the {people} border .
        """,
    ),
    _topic(
        "weather",
        nouns="storm flood river village road wind bridge roof forecast snow field farmer warning island tree",
        adjectives="heavy strong cold dry northern southern wooden sudden deep narrow",
        jobs="farmer forecaster fisherman pilot driver engineer",
        frames="""
            {noun} [hit] {town} {when} .
            {noun} near {landmark} [destroy] {number} houses .
            {nouns} [be] {adjective} in {country} {when} .
            rain [fall] on {town} and {town2} {when} .
            {job} {person} [see] {noun} over {landmark} .
            the {body} [expect] {nouns} in {town} .
            roads from {town} to {town2} [be+] closed because of {noun} .
            {number} people [leave+] {town} after {noun} .
            {person} [lose] <his> {bare} in {noun2} .
            {landmark} [rise] {number} metres {when} .
            {anyone} [send] {nouns} to {anyone2} .
            {town} {number} {town2} {number2}
        """,
    ),
    _topic(
        "science",
        nouns="study planet star cell virus patient drug experiment telescope theory brain disease result animal",
        adjectives="small distant rare common human modern early blue unknown medical",
        jobs="professor doctor scientist student physicist biologist",
        frames="""
            {job} {person} of the {body} [find] {noun} .
            {noun} by the {body} [show] that {nouns} [be] {adjective} .
            {person} and {person2} [win+] the {event} for their {bare} .
            {people} {nouns} [discover+] {noun} near {landmark} .
            {company} [test] {noun} in {country} {when} .
            the {body} [open] {noun} in {town} .
            {person} [study] {nouns} at the {body} .
            {noun} from {landmark} [be] {adjective} , {anyone} [say-] .
            {person} [write] that {nouns} may be {adjective} .
            {company} [give] {money} to the {body} for {noun} .
            {anyone} [know] {anyone2} well .
        """,
    ),
    _topic(
        "crime",
        nouns="court judge policeman prison trial jury thief gun witness murder robbery lawyer car sentence search",
        adjectives="guilty armed violent stolen white long dangerous dark false old",
        jobs="lawyer judge detective prosecutor guard witness",
        frames="""
            police in {town} [arrest+] {person} {when} .
            {person} , {number} , [be] guilty of {noun} , the {body} [say-] .
            {noun} [steal] {money} from {company} in {town} .
            {job} {person} [tell] the {body} that {noun} [be] {adjective} .
            {people} {job} {person} [deny] {noun} .
            {noun} of {person} [begin] in {town} {when} .
            {person} [escape] from {noun} near {landmark} .
            {anyone} [accuse] {anyone2} of {noun} .
            {town} police [search+] {noun} of {anyone} .
            {person} [take] <his> {bare} to {town} .
            the {body} [send] {person} to prison for {number} years .
        """,
    ),
    _topic(
        "arts",
        nouns="film book museum painting actor song concert theatre poem novel gallery stage prize dancer audience",
        adjectives="beautiful sad funny long modern famous quiet bright golden romantic",
        jobs="actor writer singer painter director poet composer",
        frames="""
            {job} {person} [win] the {event} for <his> {bare} {when} .
            {person} [write] {noun} about {landmark} .
            the {body} [show] {nouns} by {person} .
            {noun} by {people} {job} {person} [open] in {town} .
            {person} and {person2} [meet+] at the {event} in {town} .
            {company} [sell] {noun} of {person} for {money} .
            {people} {nouns} [be+] {adjective} , {person} [say-] .
            {person} , born in {town} , [sing] at the {event} {when} .
            {anyone} [love] <his> {bare} .
            {noun} [tell] of {person} , a {adjective} {job} from {country} .
            {person} [play] {anyone} in {noun} .
        """,
    ),
    _topic(
        "travel",
        nouns="train airport hotel tourist flight passenger ship beach mountain ticket station guide map harbour bus",
        adjectives="empty busy slow cheap warm lovely crowded old green tall",
        jobs="pilot guide traveller captain tourist cook",
        frames="""
            {company} [begin] {nouns} from {town} to {town2} {when} .
            {noun} from {town} [reach] {landmark} {when} .
            {people} {nouns} [visit+] {town} {when} .
            {job} {person} [carry] {number} passengers to {country} .
            {noun} in {town} [be] {adjective} , {person} [write-] .
            {person} [climb] {landmark} with {people} {job} {person2} .
            {company} [buy] {number} {nouns} from {company2} .
            the road from {town} to {landmark} [be] {adjective} .
            {anyone} [leave] for {anyone2} {when} .
            {town} , {country} , [be] famous for <his> {nouns} .
            {nouns} in {country} [cost] {money} .
        """,
    ),
)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
CONNECTIVES = ("and", "but", "while")
EMOJI_WORDS = ("⚽", "🎉", "😀", "👍🏽", "🌧️", "👩‍🔬", "🇫🇷", "❤️")
