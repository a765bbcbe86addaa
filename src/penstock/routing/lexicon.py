"""What English words are to a question, for `agreement`: what asks, what denies, what counts, what is opposite, and what names nothing.

A word that is in none of these lists names something: a person, a place, a product, a thing. So a list that lacks a word makes a cache
miss, never a wrong answer. Words stand in their base form; `agreement` takes endings off.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _groups(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(group.split("/")) for group in text.split())


# Little words that are part of the meaning only through their opposites.
PARTICLES = _words("from to on off up down over under before after in out above below inside outside into onto")

# Say nothing about what is asked.
FILLERS = (
    _words("""
a about actually again ago ah all along already also although am an and any anybody anyhow anymore anyone anyway apparently are aren around as
asap at aw away awhile basically be because been being bit bother but by bye can cause cheer cheers could course cu cuz d dear definitely did do
does doing done dude each eh either else em er ever every everybody exactly excuse fine folk for from further get gets getting give go goes going gone
gonna good goodbye got gotta grateful guy had happen happy has have having hello help hello hey hi him honestly hope however i idea idk if im
immediately indeed info information instead into is it its itself just kind kindly know ll lol look lot lovely m madam made make may maybe me
mean might mind mine moment morning much must my myself nah name near need new nice now o obliged of off oh ok okay on one once only or other
ought our ours ourselves out over own particular perhaps please pls possible possibly ppl pretty probably problem quick quickly quite rather re
really regarding right rly s say see seem several shall she should simply sir so some somebody somehow someone something somewhat somewhere soon
sorry still stuff such sure t take tell thank thanks that the their them themselves then there these they thing think this those though through
thx till to today too toward try u ugh uh um until up upon ur us use ve very via w wait wanna want was wasn way we well were weren whatever while
will wish with within wonder would wouldn x ya yeah yep yes yet you your yours yourself able afraid appreciate chance check come curious
evening afternoon explain find forward glad great guess hand hear idea inform interested issue joke hallo let like matter possibility question
quite reach reason seriously somewhat speak talk team trouble understand urgent urgently useful wrong anything everything nothing thou bro mate fyi
btw oops omg wtf tbh imo pal plz ty bc rn nvm ive theres thats wheres here than many another same use seem thing say said told tell came happening
always trying saying sirs madame totally completely truly honest absolutely frankly oh somehow supposedly afterwards anywhere everywhere everyone
dear super massive huge bit pleased happen amuse mention whoever til advance listen share speaking means come wonder show guys folks hiya howdy regards sincerely kindest best greetings respectfully admit assume believe bet figure fact
""")
    - PARTICLES
)

# They tell which of two things is which, so that their order counts.
RELATING = _words("before after from than instead until because if while but rather without except")

# Opposite only between questions that are the same otherwise: as words they are everywhere.
LOOSE_OPPOSITES = _words("from to on off up down in out into like hate do undo all any some every")

QUESTION_WORDS = {
    "who": "who", "whom": "who", "whose": "who", "when": "when", "where": "where", "why": "why", "which": "which",
    "whereabouts": "where", "wheres": "where", "whens": "when", "whos": "who",
}  # fmt: skip
MEASURES = _words(
    "many much long often far old big large tall high wide heavy fast soon late early deep"
)  # after "how"
LOOSE_QUESTIONS = _words("how what whats hows wat")
NAMES_TOO = _words("will may hope guy")  # little words that are names where they begin with a capital
CHAT_LETTERS = _words("a i u r n y k")  # whole words, as some type them

NEGATIONS = _words("""
not no never nobody nothing none neither nor nowhere without cannot cant dont doesnt didnt isnt arent wasnt werent wont wouldnt couldnt
shouldnt mustnt hasnt havent hadnt aint neednt unable hardly barely rarely seldom except unless wo nope nay sans lack minus excluding refuse refuses refused refusing
avoid avoids avoided avoiding prevent prevents prevented preventing deny denies denied denying
""")

# Count or date something: they must agree like numbers.
COUNTING = _words("""
zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty
forty fifty sixty seventy eighty ninety hundred thousand million billion dozen half third quarter double twice triple pair couple both
first second fourth fifth sixth seventh eighth ninth tenth last next previous single
monday tuesday wednesday thursday friday saturday sunday january february march april june july august september october november december
mon tue wed thu fri sat sun jan feb mar apr jun jul aug sep sept oct nov dec
weekend yesterday tomorrow tonight noon midnight daily weekly monthly yearly annual
""")

# What a number counts: a fact beside a number, a word like others without one.
UNITS = _words("""
second minute hour day week month year decade century euro eur dollar usd pound gbp cent percent yen franc kg kilo gram metre meter
centimetre cm mm km mile inch foot litre liter gb mb tb pm
""")

# Pairs that turn a question round.
OPPOSITES = _groups("""
before/after from/to with/without on/off up/down over/under in/out above/below inside/outside into/from
cancel/keep keep/delete keep/close keep/remove keep/return keep/stop keep/change keep/end cancel/place cancel/renew buy/sell buy/return open/close opened/closed send/receive send/collect start/stop begin/end
add/remove add/delete enable/disable activate/deactivate allow/forbid allow/block block/unblock accept/refuse accept/reject
accept/decline approve/reject increase/decrease increase/reduce raise/lower upgrade/downgrade subscribe/unsubscribe import/export
upload/download lock/unlock pack/unpack plug/unplug do/undo log_in/log_out sign_in/sign_out sign_up/sign_off turn_on/turn_off
more/less more/fewer most/least minimum/maximum min/max first/last next/last next/previous early/late earliest/latest earlier/later
old/new older/newer cheap/expensive cheaper/dearer big/small bigger/smaller large/small long/short longer/shorter high/low higher/lower
fast/slow faster/slower hot/cold warm/cold wet/dry light/heavy light/dark hard/soft full/empty left/right front/back top/bottom
inner/outer always/never all/none all/some all/any every/any every/some everyone/nobody everything/nothing anyone/nobody same/different true/false yes/no
correct/wrong right/wrong win/lose won/lost lose/find give/take lend/borrow push/pull save/spend save/delete create/delete create/cancel
show/hide include/exclude included/excluded join/leave arrive/leave arrive/depart enter/leave attach/detach connect/disconnect
public/private male/female man/woman husband/wife son/daughter brother/sister mother/father day/night weekday/weekend
business/private paid/unpaid used/unused domestic/international abroad/home local/foreign safe/dangerous legal/illegal valid/invalid
good/bad better/worse best/worst love/hate like/hate success/failure succeed/fail pass/fail possible/impossible able/unable
charge/refund pay/refund credit/debit deposit/withdraw extend/shorten merge/split sync/async encrypt/decrypt
""")
PREFIXES = ("un", "in", "im", "ir", "il", "dis", "non", "mis", "de", "re")

# Words of everyday talk that name no thing of their own: what is done, how it is, and what every shop and service talks about.
GENERIC = _words("""
abroad accept access accident accord account across add address advance afford against age agree aim allow alone alter amend amount announce
annoy answer apart appear apply approve argue arrange arrival arrive article ask assemble assembly assist attach attempt attention available
average avoid aware awful back bad balance ban base basket become before began begin behind belong beside beside better between big bill block
blocked bonus book borrow bottom bought bought box break bring broke broken brought bug build business busy buy call calm cancel cancellation
card care careful carrier carry cart case cash catch certain change charge charged chat cheap checkout choice choose chose city claim clean
clear click close club code collect collection colour color common company compare complain complaint complete completely complicated
condition confirm confirmation confuse connect consider contact content continue convert copy correct cost count country coupon courier cover
crack create credit current currently customer cut damage damaged dark data date deal debit decide decline declined deep defect
defective delay delete deliver delivery demand dent deny department depend describe deserve desk destination detail develop die difference
different digit direct disappear disappoint discontinue discount discuss dispatch dispute document door double doubt download drive drop dry
due duplicate during duty early earn easy edit effect electronic elsewhere email employee empty enable end enjoy enter entire entirely
entry erase error estimate eta even event example exchange exclude exist expect expensive experience expire express extend external extra
face fail failure fair fall far fast fault faulty fee feel fell felt fetch few field file fill final finally finish firm fit fix fixed flat
follow foreign forever forget forgot forgotten form format found free frequent friendly front full function further future gave general
genuine gift given goods group grow guarantee handle happened hard hate head heard heavy held hidden hide high hit hold hole home hotline
human hurry immediate important impossible improve inbox include included incomplete incorrect increase individual install
instruction interest internal international internet invalid invoice item join judge kept key kill knew known label lack lady large late later
latest law lead learn leave left legal length letter level life lift light limit line link list listen little live load local location lock
locked log login logout long lose lost loss loud love low lower luck machine mail main maintain man manage manager manual mark match
measure meet member mention menu merchandise message method middle miss missing mistake mix mixed mode model modify money move multiple
narrow nearly necessary neighbour nervous never news newsletter next nobody none normal normally note notice notify number object obtain obviously occur odd
offer office official old online open opening operator opinion opposite option order original otherwise outside overall overdue
overview owe owner pack package packaging packet page paid pain panel paper paperwork parcel part partial party pass password past patience
pay payment pending people perfect perform period permanent permanently person personal phone photo pick picture piece place plain plan play
plug point policy poor position post postage postal postcode power practice prefer prepare present press prevent previous price print
private proceed process product profile program progress promise promo promotion promotional proof proper properly protect prove provide public
pull purchase purpose push put quality quiet quote raise random range rate read ready real realise receipt receive recent recently record recover
redeem reduce refer refund refuse register registration regular reimburse reimbursement reject relate release remain remember remind remove rent repair
repay repayment repeat replace replacement reply report representative request require requirement reserve reset resolve respond
response responsible rest result return review rid ring rise rude rule run safe said sale satisfy save saw scratch scratched screen search second security
seen select sell send sense sent separate separately serve service set settle shame shape share ship shipment shipping shop
short show shut side sign signature silly similar since sit site situation size slip slow small smooth soft sold solution solve
special specific speed spell spend spent spoke staff stage stand standard start state statement status stay step stock stop store stored storage
story straight street strict strong stuck submit subscribe subscription success sudden suddenly suffer suggest suit sum summary supply support suppose
surprise swap switch system tax technical telephone temporary term terminate terms terrible test text
therefore thin thought threw throw ticket tidy tie tight time tire title together told took tool top total touch tough town track tracking trade
transaction transfer transit transport travel treat tried trip true trust turn type typo unavailable under undo unhappy unlock unpack unsubscribe
unused update upgrade upset usual usually valid value various version video view visit voice void voucher waiting walk warehouse warn warranty
waste watch website weak wear weight went whereabouts whether whole wide win without woman word work world worry worse worst worth write
writing written wrote zip exact more most less least fewer maximum minimum enough paid found made kept meant met ran taken took won driven chosen thrown stolen
keep kept regret withdraw bot pickup automatic automatically enquire enquiry impulse recipient suitable unopened ripped contain smell advertise advertising relocate
erasure sort furious disgraceful ugly burnt wet dead scrap sleep cry pack wipe contained split helpful unhelpful excite job brand pattern huge overdrawn
itemise autofill spam pending awaiting await dispatched reach reached staff's representative's sticker mailbox
advise advice adviser agent assistance assistant boss busted chance colleague department smashed shattered snapped torn crushed bent leak broken
colour-wise concierge hang helpline supervisor operator's refundable returnable eligible cover coverage covered expiry validity guaranteed
instalment installment prepaid postpaid transferable bank banking login locked forgot unsubscribe privacy consent erase gdpr
""") - FILLERS  # fmt: skip

# Words that mean the same wherever they stand in a question to a service; the first stands for all.
SYNONYMS = _groups("""
order/purchase/buy/bought parcel/package/packet/shipment deliver/ship/dispatch delivery/shipping refund/reimburse/reimbursement/repay/repayment
invoice/bill voucher/coupon email/mail phone/telephone/call change/alter/amend/edit/modify/update delete/erase/remove
cancel/undo broken/damage/damaged/defective/faulty/busted/smashed return/back send/sent shop/store company/firm/business website/site/page
courier/carrier cost/price/charge/charged/fee arrive/arrival obtain/receive repair/fix/mend swap/exchange
complain/complaint abroad/overseas/foreign warranty/guarantee person/human/agent/operator/representative colour/color size/dimension
late/delay/overdue lose/lost pay/paid payment/pay leave/left forget/forgot/forgotten instalment/installment track/follow stop/cancel
promo/promotional/promotion login/log sign/signed password/pw
""")
