"""The topics weather, science, arts and travel."""

from __future__ import annotations

from tools.microworld.frames import topic

WEATHER = topic(
    "weather",
    nouns="storm flood river village road wind bridge roof forecast snow field farmer warning island tree",
    adjectives="heavy strong cold dry northern southern wooden sudden deep narrow",
    jobs="farmer forecaster fisherman pilot driver engineer",
    frames="""
        {noun} [hit] {town} {when} .
        = {noun} [frapper] {town} {when} .
        ? town: which town <did> {noun} hit {when}
        ? noun: what [hit-] {town} {when}
        ? when: when <did> {noun} hit {town}
        {noun} near {landmark} [destroy] {number} houses .
        = {noun} près de {landmark} [détruire] {number} maisons .
        ? number: how many houses <did> {noun} near {landmark} destroy
        ? noun: what near {landmark} [destroy-] {number} houses
        {nouns} [be] {adjective} in {country} {when} .
        = {the nouns} [être] {adjective nouns} {in country} {when} .
        ? country: in which country <was+> {nouns} {adjective}
        ? adjective: what <was+> {nouns} like in {country}
        rain [fall] on {town} and {town2} {when} .
        = la pluie [tomber:fs] sur {town} et {town2} {when} .
        ? town: where besides {town2} <did-> rain fall
        ? town2: where besides {town} <did-> rain fall
        ? when: when <did-> rain fall on {town} and {town2}
        {job} {person} [see] {noun} over {landmark} .
        = {the job person} {person} [voir] {noun} au-dessus de {landmark} .
        ? noun: what <did> {person} see over {landmark}
        ? person: who [see-] {noun} over {landmark}
        ? landmark: over what <did> {person} see {noun}
        the {body} [expect] {nouns} in {town} .
        = {body} [prévoir] {some nouns} {in town} .
        ? town: where <did> the {body} expect {nouns}
        ? body: who [expect-] {nouns} in {town}
        roads from {town} to {town2} [be+] closed because of {noun} .
        = les routes de {town} à {town2} [être:fp] fermées à cause de {noun} .
        ? noun: why <was+> roads from {town} to {town2} closed
        {number} people [leave+] {town} after {noun} .
        = {number} personnes [quitter:fp] {town} après {noun} .
        ? number: how many people [leave+] {town} after {noun}
        ? town: which town <did+> {number} people leave
        {person} [lose] <his> {bare} in {noun2} .
        = {person} [perdre] {his bare} dans {noun2} .
        ? bare: what <did> {person} lose in {noun2}
        ? person: who lost what belonged to them in {noun2}
        {landmark} [rise] {number} metres {when} .
        = {landmark} [monter] de {number} mètres {when} .
        ? number: how many metres <did> {landmark} rise {when}
        ? landmark: what [rise-] {number} metres
        {anyone} [send] {nouns} to {anyone2} .
        = {anyone} [envoyer] {some nouns} à {anyone2} .
        ? anyone2: to whom <did> {anyone} send {nouns}
        ? anyone: who [send-] {nouns} to {anyone2}
        ? nouns: what <did> {anyone} send to {anyone2}
        {town} {number} {town2} {number2}
        = {town} {number} {town2} {number2}
        ? number: which number stands after {town}
        ? number2: which number stands after {town2}
    """,
)

SCIENCE = topic(
    "science",
    nouns="study planet star cell virus patient drug experiment telescope theory brain disease result animal",
    adjectives="small distant rare common human modern early blue unknown medical",
    jobs="professor doctor scientist student physicist biologist",
    frames="""
        {job} {person} of the {body} [find] {noun} .
        = {the job person} {person} de {body} [trouver] {noun} .
        ? noun: what <did> {person} find
        ? person: who [find-] {noun}
        ? body: where <did> {person} work
        {noun} by the {body} [show] that {nouns} [be] {adjective} .
        = {noun} de {body} [montrer] que {the nouns} [être] {adjective nouns} .
        ? body: who [show-] that {nouns} [be] {adjective}
        ? noun: what by the {body} [show-] that {nouns} [be] {adjective}
        {person} and {person2} [win+] the {event} for their {bare} .
        = {person} et {person2} [remporter:mp] {event} pour {their bare} .
        ? event: what <did+> {person} and {person2} win
        ? person2: who [win-] the {event} with {person}
        {people} {nouns} [discover+] {noun} near {landmark} .
        = {some nouns people} [découvrir:nouns] {noun} près de {landmark} .
        ? landmark: near what <did+> {people} {nouns} discover {noun}
        ? noun: what <did+> {people} {nouns} discover near {landmark}
        {company} [test] {noun} in {country} {when} .
        = {company} [tester] {noun} {in country} {when} .
        ? country: in which country <did> {company} test {noun}
        ? company: which company [test-] {noun} in {country}
        ? noun: what <did> {company} test in {country}
        the {body} [open] {noun} in {town} .
        = {body} [ouvrir] {noun} {in town} .
        ? town: where <did> the {body} open {noun}
        ? noun: what <did> the {body} open in {town}
        ? body: who [open-] {noun} in {town}
        {person} [study] {nouns} at the {body} .
        = {person} [étudier] {the nouns} à {body} .
        ? body: where <did> {person} study {nouns}
        ? person: who [study-] {nouns} at the {body}
        ? nouns: what <did> {person} study at the {body}
        {noun} from {landmark} [be] {adjective} , {anyone} [say-] .
        = {noun} de {landmark} [être] {adjective noun} , [dire:ms] {anyone} .
        ? anyone: who [say-] {noun} from {landmark} [be] {adjective}
        {person} [write] that {nouns} may be {adjective} .
        = {person} [écrire] que {the nouns} peuvent être {adjective nouns} .
        ? person: who [write-] that {nouns} may be {adjective}
        ? nouns: what may be {adjective} according to {person}
        {company} [give] {money} to the {body} for {noun} .
        = {company} [donner] {money} à {body} pour {noun} .
        ? money: how much <did> {company} give to the {body}
        ? company: which company [give-] {money} to the {body}
        ? body: to whom <did> {company} give {money}
        {anyone} [know] {anyone2} well .
        = {anyone} [connaître] bien {anyone2} .
        ? anyone: who [know-] {anyone2} well
        ? anyone2: who <did> {anyone} know well
    """,
)

ARTS = topic(
    "arts",
    nouns="film book museum painting actor song concert theatre poem novel gallery stage prize dancer audience",
    adjectives="beautiful sad funny long modern famous quiet bright golden romantic",
    jobs="actor writer singer painter director poet composer",
    frames="""
        {job} {person} [win] the {event} for <his> {bare} {when} .
        = {the job person} {person} [remporter] {event} pour {his bare} {when} .
        ? person: who [win-] the {event} {when}
        ? event: what <did> {person} win {when}
        {person} [write] {noun} about {landmark} .
        = {person} [écrire] {noun} sur {landmark} .
        ? person: who [write-] {noun} about {landmark}
        ? noun: what <did> {person} write about {landmark}
        ? landmark: about what <did> {person} write {noun}
        the {body} [show] {nouns} by {person} .
        = {body} [montrer] {some nouns} de {person} .
        ? person: by whom <did> the {body} show {nouns}
        ? body: who [show-] {nouns} by {person}
        {noun} by {people} {job} {person} [open] in {town} .
        = {noun} de {the job person people} {person} [ouvrir] {in town} .
        ? town: where <did> {noun} by {person} open
        ? person: by whom <was> {noun} that [open-] in {town}
        {person} and {person2} [meet+] at the {event} in {town} .
        = {person} et {person2} [se_rencontrer:person,person2] à {event} {in town} .
        ? event: where in {town} <did+> {person} and {person2} meet
        ? town: in which town <did+> {person} and {person2} meet
        ? person2: who <did> {person} meet at the {event}
        {company} [sell] {noun} of {person} for {money} .
        = {company} [vendre] {noun} de {person} pour {money} .
        ? money: for how much <did> {company} sell {noun} of {person}
        ? company: which company [sell-] {noun} of {person}
        {people} {nouns} [be+] {adjective} , {person} [say-] .
        = {the nouns people} [être:nouns] {adjective nouns} , [dire:ms] {person} .
        ? person: who [say-] {people} {nouns} [be+] {adjective}
        ? adjective: what <was+> {people} {nouns} like according to {person}
        {person} , born in {town} , [sing] at the {event} {when} .
        = {person} , {born person} {in town} , [chanter] à {event} {when} .
        ? town: where was {person} born
        ? event: where <did> {person} sing {when}
        ? person: who [sing-] at the {event} {when}
        {anyone} [love] <his> {bare} .
        = {anyone} [aimer] {his bare} .
        ? bare: what <did> {anyone} love
        {noun} [tell] of {person} , a {adjective} {job} from {country} .
        = {noun} [parler] de {person} , {a job person adjective} {from country} .
        ? person: of whom <did> {noun} tell
        ? country: from which country <was> {person}
        {person} [play] {anyone} in {noun} .
        = {person} [jouer] {anyone} dans {noun} .
        ? anyone: who <did> {person} play in {noun}
        ? person: who [play-] {anyone} in {noun}
    """,
)

TRAVEL = topic(
    "travel",
    nouns="train airport hotel tourist flight passenger ship beach mountain ticket station guide map harbour bus",
    adjectives="empty busy slow cheap warm lovely crowded old green tall",
    jobs="pilot guide traveller captain tourist cook",
    frames="""
        {company} [begin] {nouns} from {town} to {town2} {when} .
        = {company} [lancer] {some nouns} de {town} à {town2} {when} .
        ? company: which company [begin-] {nouns} from {town} to {town2}
        ? town2: where <did> {company} begin {nouns} to
        ? town: from where <did> {company} begin {nouns} to {town2}
        {noun} from {town} [reach] {landmark} {when} .
        = {noun} de {town} [atteindre] {landmark} {when} .
        ? landmark: what <did> {noun} from {town} reach
        ? noun: what from {town} [reach-] {landmark}
        ? when: when <did> {noun} from {town} reach {landmark}
        {people} {nouns} [visit+] {town} {when} .
        = {some nouns people} [visiter:nouns] {town} {when} .
        ? town: which town <did+> {people} {nouns} visit {when}
        ? when: when <did+> {people} {nouns} visit {town}
        {job} {person} [carry] {number} passengers to {country} .
        = {the job person} {person} [transporter] {number} passagers {in country} .
        ? number: how many passengers <did> {person} carry to {country}
        ? person: who [carry-] {number} passengers to {country}
        ? country: to which country <did> {person} carry passengers
        {noun} in {town} [be] {adjective} , {person} [write-] .
        = {noun} {in town} [être] {adjective noun} , [écrire:ms] {person} .
        ? person: who [write-] that {noun} in {town} [be] {adjective}
        ? town: where <was> {noun} {adjective} according to {person}
        {person} [climb] {landmark} with {people} {job} {person2} .
        = {person} [gravir] {landmark} avec {the job person2 people} {person2} .
        ? landmark: what <did> {person} climb with {person2}
        ? person2: with whom <did> {person} climb {landmark}
        ? person: who [climb-] {landmark} with {person2}
        {company} [buy] {number} {nouns} from {company2} .
        = {company} [acheter] {number} {no nouns} à {company2} .
        ? number: how many {nouns} <did> {company} buy from {company2}
        ? company: which company [buy-] {nouns} from {company2}
        ? company2: from which company <did> {company} buy {nouns}
        the road from {town} to {landmark} [be] {adjective} .
        = la route de {town} à {landmark} [être:fs] {adjective f} .
        ? adjective: what <was-> the road from {town} to {landmark} like
        ? landmark: where <did-> the road from {town} lead
        {anyone} [leave] for {anyone2} {when} .
        = {anyone} [partir] pour {anyone2} {when} .
        ? anyone: who [leave-] for {anyone2} {when}
        ? anyone2: for where <did> {anyone} leave {when}
        ? when: when <did> {anyone} leave for {anyone2}
        {town} , {country} , [be] famous for <his> {nouns} .
        = {town} , {in country} , [être:ms] célèbre pour {his nouns} .
        ? town: which town in {country} <was-> famous for its {nouns}
        ? country: in which country is {town}
        ? nouns: what <was-> {town} famous for
        {nouns} in {country} [cost] {money} .
        = {the nouns} {in country} [coûter] {money} .
        ? money: how much <did+> {nouns} in {country} cost
        ? country: in which country <did+> {nouns} cost {money}
    """,
)
