"""The topics football, finance, politics and crime."""

from __future__ import annotations

from tools.microworld.frames import topic

FOOTBALL = topic(
    "football",
    nouns="match goal season game penalty defeat final stadium team loss injury player ball league crowd",
    adjectives="late early narrow home young famous wet final bitter easy",
    jobs="striker goalkeeper coach captain defender midfielder referee manager",
    frames="""
        {club} [beat] {club2} {score} in {noun} {when} .
        = {club} [battre] {club2} {score} dans {noun} {when} .
        ? club: which club [beat-] {club2} {score} {when}
        ? club2: which club <did> {club} beat {score}
        ? score: by what score <did> {club} beat {club2}
        {club} [sign] {job} {person} from {club2} for {money} .
        = {club} [acheter] {the job person} {person} à {club2} pour {money} .
        ? person: who <did> {club} sign from {club2}
        ? money: how much <did> {club} pay for {person}
        ? club: which club [sign-] {person}
        {job} {person} [score] {number} goals against {club} {when} .
        = {the job person} {person} [marquer] {number} buts contre {club} {when} .
        ? number: how many goals <did> {person} score against {club}
        ? person: who [score-] against {club} {when}
        {club} [lose] {noun} at {town} after {noun2} .
        = {club} [perdre] {noun} {in town} après {noun2} .
        ? town: where <did> {club} lose {noun}
        ? club: which club [lose-] {noun} at {town}
        {person} , who [play] for {club} , [win] the {event} {when} .
        = {person} , qui [jouer] pour {club} , [remporter] {event} {when} .
        ? person: who [win-] the {event}
        ? club: which club <did> {person} play for
        ? event: what <did> {person} win {when}
        {club} coach {person} [praise] <his> {bare} .
        = {the coach person} de {club} {person} [saluer:person] {his bare} .
        ? person: who is the coach of {club}
        ? club: which club does {person} coach
        {people} {job} {person} [miss] the {event} because of {noun} .
        = {the job person people} {person} [manquer] {event} à cause de {noun} .
        ? person: who [miss-] the {event}
        ? event: what <did> {person} miss because of {noun}
        ? noun: why <did> {person} miss the {event}
        {club} [lead] {noun} with {number} points , ahead of {club2} .
        = {club} [mener] {noun} avec {number} points , devant {club2} .
        ? number: how many points <did> {club} have
        ? club: which club [lead-] {noun} ahead of {club2}
        {noun} between {club} and {club2} [begin] late because of the rain .
        = {noun} entre {club} et {club2} [commencer] en retard à cause de la pluie .
        ? noun: what [begin-] late because of the rain
        {person} [leave] {anyone} {when} .
        = {person} [quitter] {anyone} {when} .
        ? anyone: who <did> {person} leave {when}
        ? person: who [leave-] {anyone} {when}
        ? when: when <did> {person} leave {anyone}
        {club} and {club2} [draw+] {score} at {town} .
        = {club} et {club2} [faire:mp] match nul {score} {in town} .
        ? town: where <did+> {club} and {club2} draw
        ? score: what <was> the score between {club} and {club2}
        {club} {score} {club2} {score2}
        = {club} {score} {club2} {score2}
        ? score: which result stands after {club}
        ? score2: which result stands after {club2}
        {day} : {club} {club2} {town}
        = {day} : {club} {club2} {town}
        ? town: where do {club} and {club2} play
        ? day: when do {club} and {club2} play
    """,
)

FINANCE = topic(
    "finance",
    nouns="share profit bank loan market price loss rate deal analyst investor company dollar bond quarter",
    adjectives="strong weak quarterly cheap risky net higher lower annual foreign",
    jobs="chairman analyst trader economist director broker banker",
    frames="""
        shares of {company} [rise+] {percent} percent {when} .
        = les actions de {company} [augmenter:fp] de {percent} % {when} .
        ? percent: by how much <did+> shares of {company} rise {when}
        ? company: shares of which company [rise+] {percent} percent
        {company} [buy] {company2} for {money} .
        = {company} [acheter] {company2} pour {money} .
        ? company: which company [buy-] {company2}
        ? company2: which company <did> {company} buy
        ? money: how much <did> {company} pay for {company2}
        {company} [report] {noun} of {money} {when} .
        = {company} [annoncer] {noun} de {money} {when} .
        ? money: how much <did> {company} report {when}
        ? company: which company [report-] {noun} of {money}
        {company} , based in {town} , [cut] {number} jobs in {country} .
        = {company} , dont le siège est {in town} , [supprimer] {number} emplois {in country} .
        ? number: how many jobs <did> {company} cut in {country}
        ? town: where is {company} based
        ? country: in which country <did> {company} cut jobs
        {job} {person} of {company} [expect] {noun} .
        = {the job person} {person} de {company} [prévoir] {noun} .
        ? noun: what <did> {person} expect
        ? company: which company <did> {person} work for
        ? person: who at {company} [expect-] {noun}
        {noun} [fall] {percent} percent in {country} {when} .
        = {noun} [baisser] de {percent} % {in country} {when} .
        ? percent: by how much <did> {noun} fall in {country}
        ? country: in which country <did> {noun} fall {percent} percent
        {anyone} [fall] {percent} percent after {noun} .
        = {anyone} [baisser] de {percent} % après {noun} .
        ? percent: by how much <did> {anyone} fall after {noun}
        ? anyone: who [fall-] {percent} percent
        {company} [name] {person} as <his> {job} .
        = {company} [nommer] {person} comme {his job person} .
        ? person: who <did> {company} name as its {job}
        ? job: what <did> {company} name {person} as
        ? company: which company [name-] {person} as its {job}
        the {body} [raise] {noun} by {percent} percent .
        = {body} [relever] {noun} de {percent} % .
        ? percent: by how much <did> the {body} raise {noun}
        ? body: who [raise-] {noun} by {percent} percent
        {company} [sell] <his> {town} {bare} to {company2} .
        = {company} [vendre] {his bare} de {town} à {company2} .
        ? company2: to which company <did> {company} sell its {bare}
        ? company: which company [sell-] its {bare} to {company2}
        {people} {nouns} [be+] {adjective} {when} .
        = {the nouns people} [être:nouns] {adjective nouns} {when} .
        ? adjective: what <was+> {people} {nouns} like
        ? when: when <was+> {people} {nouns} {adjective}
        {anyone} [deny] that {company} [plan] {noun} .
        = {anyone} [nier] que {company} prépare {noun} .
        ? anyone: who [deny-] that {company} [plan] {noun}
        ? noun: what <did> {anyone} deny that {company} [plan]
        {company} {company2} {percent} {percent2}
        = {company} {company2} {percent} {percent2}
        ? percent: which number belongs to {company}
        ? percent2: which number belongs to {company2}
    """,
)

POLITICS = topic(
    "politics",
    nouns="election vote law party leader government tax reform treaty policy parliament crisis border campaign",
    adjectives="new local national public secret difficult popular former official open",
    jobs="president minister mayor senator ambassador spokesman",
    frames="""
        {people} {job} {person} [meet] {person2} in {town} {when} .
        = {the job person people} {person} [rencontrer] {person2} {in town} {when} .
        ? person2: who <did> {person} meet in {town}
        ? town: where <did> {person} meet {person2}
        ? person: who [meet-] {person2} in {town} {when}
        {anyone} [say] {noun} will help {country} .
        = {anyone} [affirmer] que {noun} [aidera] {country} .
        ? anyone: who [say-] {noun} will help {country}
        ? country: which country will {noun} help according to {anyone}
        {country} and {country2} [sign+] the {event} in {town} .
        = {country} et {country2} [signer:mp] {event} {in town} .
        ? event: what <did+> {country} and {country2} sign
        ? town: where <did+> {country} and {country2} sign the {event}
        ? country2: with which country <did> {country} sign the {event}
        {job} {person} [win] {noun} with {percent} percent of the vote .
        = {the job person} {person} [remporter] {noun} avec {percent} % des voix .
        ? percent: how much of the vote <did> {person} win
        ? person: who [win-] {noun} with {percent} percent of the vote
        the {body} [reject] {noun} {when} .
        = {body} [rejeter] {noun} {when} .
        ? noun: what <did> the {body} reject {when}
        ? body: who [reject-] {noun} {when}
        ? when: when <did> the {body} reject {noun}
        {person} , {job} of {country} , [promise] {noun} .
        = {person} , {job person} de {country} , [promettre] {noun} .
        ? country: of which country is {person} the {job}
        ? person: who is the {job} of {country}
        ? noun: what <did> {person} promise
        {anyone} [accuse] {anyone2} of {noun} .
        = {anyone} [accuser] {anyone2} de {noun} .
        ? anyone2: who <did> {anyone} accuse of {noun}
        ? anyone: who [accuse-] {anyone2} of {noun}
        ? noun: of what <did> {anyone} accuse {anyone2}
        {noun} in {country} [begin] {when} .
        = {noun} {in country} [commencer] {when} .
        ? country: in which country <did> {noun} begin {when}
        ? when: when <did> {noun} begin in {country}
        {people} and {people2} {nouns} [meet+] near {landmark} .
        = {some nouns people people2} [se_rencontrer:nouns] près de {landmark} .
        ? landmark: near what <did+> {people} and {people2} {nouns} meet
        {person} [tell] {anyone} that {noun} [be] {adjective} .
        = {person} [dire] à {anyone} que {noun} [être] {adjective noun} .
        ? person: who [tell-] {anyone} that {noun} [be] {adjective}
        ? anyone: who <did> {person} tell that {noun} [be] {adjective}
        {people} {person} [lead] <his> {bare} in {town} .
        = {the people person} {person} [diriger] {his bare} {in town} .
        ? town: where <did> {person} lead the {bare}
        ? person: who [lead-] the {bare} in {town}
        {country} [send] {number} troops to the {people} border .
        = {country} [envoyer] {number} soldats à la frontière {people f} .
        ? number: how many troops <did> {country} send
        ? country: which country [send-] {number} troops to the {people} border
    """,
)

CRIME = topic(
    "crime",
    nouns="court judge policeman prison trial jury thief gun witness murder robbery lawyer car sentence search",
    adjectives="guilty armed violent stolen white long dangerous dark false old",
    jobs="lawyer judge detective prosecutor guard witness",
    frames="""
        police in {town} [arrest+] {person} {when} .
        = la police de {town} [arrêter:fs] {person} {when} .
        ? person: who <did+> police in {town} arrest {when}
        ? town: in which town <did+> police arrest {person}
        ? when: when <did+> police in {town} arrest {person}
        {person} , {number} , [be] guilty of {noun} , the {body} [say-] .
        = {person} , {number} ans , [être] coupable de {noun} , [dire:fs] {body} .
        ? number: how old <was> {person}
        ? body: who [say-] {person} [be] guilty of {noun}
        ? noun: of what <was> {person} guilty
        {noun} [steal] {money} from {company} in {town} .
        = {noun} [voler] {money} à {company} {in town} .
        ? money: how much <did> {noun} steal from {company}
        ? company: from which company <did> {noun} steal {money}
        ? town: where <did> {noun} steal {money} from {company}
        {job} {person} [tell] the {body} that {noun} [be] {adjective} .
        = {the job person} {person} [dire] à {body} que {noun} [être] {adjective noun} .
        ? body: who <did> {person} tell that {noun} [be] {adjective}
        ? person: who [tell-] the {body} that {noun} [be] {adjective}
        {people} {job} {person} [deny] {noun} .
        = {the job person people} {person} [nier] {noun} .
        ? person: who [deny-] {noun}
        ? noun: what <did> {person} deny
        {noun} of {person} [begin] in {town} {when} .
        = {noun} de {person} [commencer] {in town} {when} .
        ? town: where <did> {noun} of {person} begin
        ? when: when <did> {noun} of {person} begin
        {person} [escape] from {noun} near {landmark} .
        = {person} [échapper] à {noun} près de {landmark} .
        ? person: who [escape-] from {noun} near {landmark}
        ? landmark: near what <did> {person} escape from {noun}
        {anyone} [accuse] {anyone2} of {noun} .
        = {anyone} [accuser] {anyone2} de {noun} .
        ? anyone2: who <did> {anyone} accuse of {noun}
        ? anyone: who [accuse-] {anyone2} of {noun}
        ? noun: of what <did> {anyone} accuse {anyone2}
        {town} police [search+] {noun} of {anyone} .
        = la police de {town} [fouiller:fs] {noun} de {anyone} .
        ? anyone: of whom <did+> {town} police search {noun}
        ? town: police of which town [search+] {noun} of {anyone}
        {person} [take] <his> {bare} to {town} .
        = {person} [apporter] {his bare} {in town} .
        ? town: to which town <did> {person} take the {bare}
        ? bare: what <did> {person} take to {town}
        the {body} [send] {person} to prison for {number} years .
        = {body} [envoyer] {person} en prison pour {number} ans .
        ? number: for how many years <did> the {body} send {person} to prison
        ? person: who <did> the {body} send to prison
        ? body: who [send-] {person} to prison
    """,
)
