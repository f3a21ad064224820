"""The French lexicon by English word: nouns with gender, adjectives, professions and verbs.

The tables list irregular forms. The functions below them form the regular ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.microworld.names import Entity

MONTHS = [
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
]
DAYS = ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"]
RECENT = ("la semaine dernière", "l' année dernière", "hier", "ce mois-ci")
"""In the order of `english.RECENT`."""
CONNECTIVES = {"and": "et", "but": "mais", "while": "tandis que"}

# English: French, gender, and the plural if it is irregular.
_NOUNS = """
match: match m; goal: but m; season: saison f; game: partie f; penalty: pénalité f; defeat: défaite f; final: finale f;
stadium: stade m; team: équipe f; loss: perte f; injury: blessure f; player: joueur m; ball: ballon m; league: ligue f;
crowd: foule f; share: action f; profit: bénéfice m; bank: banque f; loan: prêt m; market: marché m; price: prix m;
rate: taux m; deal: accord m; analyst: analyste m; investor: investisseur m; company: entreprise f; dollar: dollar m;
bond: obligation f; quarter: trimestre m; election: élection f; vote: vote m; law: loi f; party: parti m;
leader: dirigeant m; government: gouvernement m; tax: impôt m; reform: réforme f; treaty: traité m;
policy: politique f; parliament: parlement m; crisis: crise f; border: frontière f; campaign: campagne f;
storm: tempête f; flood: inondation f; river: rivière f; village: village m; road: route f; wind: vent m;
bridge: pont m; roof: toit m; forecast: prévision f; snow: neige f; field: champ m; farmer: agriculteur m;
warning: alerte f; island: île f; tree: arbre m; study: étude f; planet: planète f; star: étoile f; cell: cellule f;
virus: virus m; patient: patient m; drug: médicament m; experiment: expérience f; telescope: télescope m;
theory: théorie f; brain: cerveau m; disease: maladie f; result: résultat m; animal: animal m; court: tribunal m;
judge: juge m; policeman: policier m; prison: prison f; trial: procès m; jury: jury m; thief: voleur m; gun: arme f;
witness: témoin m; murder: meurtre m; robbery: vol m; lawyer: avocat m; car: voiture f; sentence: peine f;
search: fouille f; film: film m; book: livre m; museum: musée m; painting: tableau m; actor: acteur m; song: chanson f;
concert: concert m; theatre: théâtre m; poem: poème m; novel: roman m; gallery: galerie f; stage: scène f;
prize: prix m; dancer: danseur m; audience: public m; train: train m; airport: aéroport m; hotel: hôtel m;
tourist: touriste m; flight: vol m; passenger: passager m; ship: navire m; beach: plage f; mountain: montagne f;
ticket: billet m; station: gare f; guide: guide m; map: carte f; harbour: port m; bus: bus m
"""

# English: masculine, the feminine if it is irregular, "<" if the adjective precedes its noun.
_ADJECTIVES = """
late: tardif; early: précoce; narrow: étroit; home: à_domicile =; young: jeune <; famous: célèbre; wet: humide;
final: final; bitter: amer; easy: facile; strong: fort; weak: faible; quarterly: trimestriel; cheap: bon_marché =;
risky: risqué; net: net nette; higher: supérieur; lower: inférieur; annual: annuel; foreign: étranger;
new: nouveau nouvelle nouvel <; local: local; national: national; public: public publique; secret: secret secrète;
difficult: difficile; popular: populaire; former: ancien <; official: officiel; open: ouvert; heavy: lourd;
cold: froid; dry: sec sèche; northern: septentrional; southern: méridional; wooden: en_bois =; sudden: soudain;
deep: profond; small: petit <; distant: lointain; rare: rare; common: commun; human: humain; modern: moderne;
blue: bleu; unknown: inconnu; medical: médical; guilty: coupable; armed: armé; violent: violent; stolen: volé;
white: blanc blanche; long: long longue <; dangerous: dangereux; dark: sombre; false: faux fausse <;
old: vieux vieille vieil <; beautiful: beau belle bel <; sad: triste; funny: drôle; quiet: calme; bright: lumineux;
golden: doré; romantic: romantique; empty: vide; busy: animé; slow: lent; warm: chaud; lovely: charmant;
crowded: bondé; green: vert; tall: haut <; born: né
"""

# English: masculine, the feminine if it differs.
_JOBS = """
striker: attaquant attaquante; goalkeeper: gardien gardienne; coach: entraîneur entraîneuse; captain: capitaine;
defender: défenseur défenseure; midfielder: milieu_de_terrain; referee: arbitre; manager: gérant gérante;
chairman: président présidente; analyst: analyste; trader: négociant négociante; economist: économiste;
director: directeur directrice; broker: courtier courtière; banker: banquier banquière;
president: président présidente; minister: ministre; mayor: maire; senator: sénateur sénatrice;
ambassador: ambassadeur ambassadrice; spokesman: porte-parole; farmer: agriculteur agricultrice;
forecaster: météorologue; fisherman: pêcheur pêcheuse; pilot: pilote; driver: conducteur conductrice;
engineer: ingénieur ingénieure; professor: professeur professeure; doctor: docteur docteure; scientist: scientifique;
student: étudiant étudiante; physicist: physicien physicienne; biologist: biologiste; lawyer: avocat avocate;
judge: juge; detective: détective; prosecutor: procureur procureure; guard: garde; witness: témoin;
actor: acteur actrice; writer: écrivain écrivaine; singer: chanteur chanteuse; painter: peintre; poet: poète;
composer: compositeur compositrice; guide: guide; traveller: voyageur voyageuse; tourist: touriste;
cook: cuisinier cuisinière
"""

# Infinitive: present singular, present plural, participle. "+" marks those whose auxiliary is être, "~" an imperfect
# (singular and plural) in place of the compound past, as French has it for states.
_VERBS = """
battre: bat battent battu; acheter: achète achètent acheté; marquer: marque marquent marqué;
perdre: perd perdent perdu; jouer: joue jouent joué; remporter: remporte remportent remporté;
saluer: salue saluent salué; manquer: manque manquent manqué; mener: mène mènent mené;
commencer: commence commencent commencé; quitter: quitte quittent quitté; faire: fait font fait;
augmenter: augmente augmentent augmenté; annoncer: annonce annoncent annoncé; supprimer: supprime suppriment supprimé;
prévoir: prévoit prévoient prévu; baisser: baisse baissent baissé; nommer: nomme nomment nommé;
relever: relève relèvent relevé; vendre: vend vendent vendu; être: est sont ~ était étaient; nier: nie nient nié;
rencontrer: rencontre rencontrent rencontré; affirmer: affirme affirment affirmé;
aidera: aidera aideront ~ aidera aideront; signer: signe signent signé; rejeter: rejette rejettent rejeté;
promettre: promet promettent promis; accuser: accuse accusent accusé;
se_rencontrer: se_rencontre se_rencontrent + rencontré; dire: dit disent dit; diriger: dirige dirigent dirigé;
envoyer: envoie envoient envoyé; arrêter: arrête arrêtent arrêté; voler: vole volent volé;
échapper: échappe échappent échappé; fouiller: fouille fouillent fouillé; apporter: apporte apportent apporté;
frapper: frappe frappent frappé; détruire: détruit détruisent détruit; tomber: tombe tombent + tombé;
voir: voit voient vu; monter: monte montent + monté; trouver: trouve trouvent trouvé; montrer: montre montrent montré;
découvrir: découvre découvrent découvert; tester: teste testent testé; ouvrir: ouvre ouvrent ouvert;
étudier: étudie étudient étudié; écrire: écrit écrivent écrit; donner: donne donnent donné;
connaître: connaît connaissent ~ connaissait connaissaient; chanter: chante chantent chanté;
aimer: aime aiment ~ aimait aimaient; parler: parle parlent parlé; lancer: lance lancent lancé;
atteindre: atteint atteignent atteint; visiter: visite visitent visité;
transporter: transporte transportent transporté; gravir: gravit gravissent gravi; partir: part partent + parti;
coûter: coûte coûtent coûté
"""


def _table(text: str) -> dict[str, list[str]]:
    entries = (entry.split(":") for entry in " ".join(text.split()).split(";"))
    return {key.strip(): forms.split() for key, forms in entries}


@dataclass(frozen=True)
class Agreement:
    """The gender and number that articles, adjectives and participles agree with."""

    feminine: bool = False
    plural: bool = False


@dataclass(frozen=True)
class FrenchNoun:
    singular: str
    plural: str
    feminine: bool


@dataclass(frozen=True)
class FrenchAdjective:
    masculine: str
    feminine: str
    before_vowel: str
    """The masculine singular before a noun that begins with a vowel: un nouvel accord."""
    precedes: bool = False
    invariable: bool = False
    people: bool = False

    def agreeing(self, agreement: Agreement) -> str:
        if self.invariable:
            return self.masculine
        form = self.feminine if agreement.feminine else self.masculine
        return plural_of(form) if agreement.plural else form


@dataclass(frozen=True)
class FrenchVerb:
    singular: str
    plural: str
    participle: str
    with_etre: bool
    imperfect: tuple[str, str] | None

    def present(self, agreement: Agreement) -> str:
        return self.plural if agreement.plural else self.singular

    def past(self, agreement: Agreement) -> str:
        if self.imperfect:
            return self.imperfect[agreement.plural]
        if not self.with_etre:
            return f"{'ont' if agreement.plural else 'a'} {self.participle}"
        pronoun = "se " if self.singular.startswith("se ") else ""
        return f"{pronoun}{'sont' if agreement.plural else 'est'} {agreeing(self.participle, agreement)}"


def plural_of(word: str) -> str:
    if word == "final":
        return "finals"
    if word.endswith(("s", "x")):
        return word
    if word.endswith("al"):
        return f"{word[:-2]}aux"
    return f"{word}x" if word.endswith("eau") else f"{word}s"


def feminine_of(adjective: str) -> str:
    """Return the feminine of a regular adjective."""
    for ending, feminine in (("er", "ère"), ("eux", "euse"), ("f", "ve"), ("ien", "ienne"), ("el", "elle")):
        if adjective.endswith(ending):
            return adjective.removesuffix(ending) + feminine
    return adjective if adjective.endswith("e") else f"{adjective}e"


def agreeing(regular: str, agreement: Agreement) -> str:
    """Return the form of a regular adjective or a participle."""
    form = feminine_of(regular) if agreement.feminine else regular
    return plural_of(form) if agreement.plural else form


def nationality(people: str) -> FrenchAdjective:
    """Return the French of a people: norlandien, norlandienne for Norlandian.

    Three of the four English endings have a French one that agrees. `-i` becomes the `-ite` of yéménite, the same for
    both genders. Different peoples have different forms.
    """
    for ending, french in (("ian", "ien"), ("ish", "ois"), ("ese", "ais"), ("i", "ite")):
        if people.endswith(ending):
            masculine = people.removesuffix(ending).lower() + french
            return FrenchAdjective(masculine, feminine_of(masculine), masculine, people=True)
    raise ValueError(f"{people!r} does not end like a people: -ian, -ish, -ese or -i")


FEMININE_COUNTRY_ENDINGS = ("ia", "ora", "any")
MASCULINE_COUNTRY_ENDINGS = ("land", "stan")
"""Endings of countries with an article: la Norlia, le Dalstan. Others (Uloo, 東京) are used without, like Cuba."""


def is_feminine(entity: Entity) -> bool:
    """Return the grammatical gender of a name: the person's, or by the ending of a country. Towns are masculine."""
    match entity.role:
        case "person":
            return entity.feminine
        case "country":
            return entity.full[0].endswith(FEMININE_COUNTRY_ENDINGS)
        case "body":
            return entity.full[0] in ("Bank", "University", "Court")
        case "landmark":
            return entity.full[0] == "River"
        case "event":
            return entity.full[1] == "Cup"
    return False


BODIES = {
    "Bank": "la Banque",
    "University": "l' Université",
    "Court": "la Cour",
    "Museum": "le Musée",
    "Institute": "l' Institut",
}
LANDMARKS = {"Mount": "le mont", "Lake": "le lac", "River": "la rivière", "Port": "", "Cape": "le cap"}
EVENTS = {
    "Cup": "la Coupe de",
    "Prize": "le Prix",
    "Open": "l' Open de",
    "Festival": "le Festival de",
    "Treaty": "le Traité de",
    "Trophy": "le Trophée",
}


def _noun(forms: list[str]) -> FrenchNoun:
    return FrenchNoun(forms[0], plural_of(forms[0]), forms[1] == "f")


def _adjective(forms: list[str]) -> FrenchAdjective:
    masculine, *others = (form.replace("_", " ") for form in forms if form not in "<=")
    feminine = others[0] if others else feminine_of(masculine)
    before_vowel = others[1] if len(others) > 1 else masculine
    return FrenchAdjective(masculine, feminine, before_vowel, precedes="<" in forms, invariable="=" in forms)


def _verb(forms: list[str]) -> FrenchVerb:
    singular, plural, *rest = (form.replace("_", " ") for form in forms)
    imperfect = (rest[1], rest[2]) if rest[0] == "~" else None
    return FrenchVerb(singular, plural, rest[-1], with_etre=rest[0] == "+", imperfect=imperfect)


NOUNS = {english: _noun(forms) for english, forms in _table(_NOUNS).items()}
ADJECTIVES = {english: _adjective(forms) for english, forms in _table(_ADJECTIVES).items()}
JOBS = {english: (forms[0].replace("_", " "), forms[-1].replace("_", " ")) for english, forms in _table(_JOBS).items()}
VERBS = {infinitive: _verb(forms) for infinitive, forms in _table(_VERBS).items()}
