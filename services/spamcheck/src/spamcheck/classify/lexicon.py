"""Words and phrases of what spam sells, by family, in several languages. Data only.

A *strong* phrase is one that hardly anybody writes who does not sell the thing. A *weak* word is also the topic of
honest work (models of gambling, of loans, of drug markets): several together count a little, and never decide alone.

Phrases are compared word by word without regard to case and accents; `*` at the end of a word stands for any ending.
Phrases in scripts without blanks between words, or with prefixes, are searched as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .indicators import Indicator


@dataclass(frozen=True, slots=True)
class Family:
    """Comma-separated phrases of one family."""

    strong: str
    weak: str = ""


FAMILIES: Mapping[Indicator, Family] = MappingProxyType(
    {
        Indicator.PHARMA: Family(
            strong="""
            viagra, cialis, buy viagra, viagra online, generic viagra, cheap viagra, viagra pills, buy cialis, cialis online, generic
            cialis, levitra, tadalafil, sildenafil, vidalista, cenforce, kamagra, fildena, priligy, cheap pills, cheap
            meds, diet pills, weight loss pills, weight loss gummies, keto gummies, cbd gummies, cbd oil, cbd gummy,
            male enhancement, erectile dysfunction pill*, penis enlargement, online pharmacy, canadian pharmacy, no
            prescription, without prescription, without a prescription, buy xanax, buy adderall, buy tramadol, buy
            oxycodone, buy oxycontin, buy ozempic, buy steroids, buy modafinil, modalert, artvigil, buy kratom, fat
            burner, testosterone booster, miracle cure, herbal cure, cure herpes, buy weed, pills online, abortion
            pills, nembutal, research chemicals for sale, cheap medications, comprar viagra, viagra sin receta,
            farmacia online, pastillas para adelgazar, comprar cialis, remedio para emagrecer, viagra sans ordonnance,
            acheter viagra, pilules pas cheres, viagra rezeptfrei, viagra kaufen, cialis kaufen, ohne rezept kaufen,
            купить виагр*, виагра купить, препараты для потенции, таблетки для похудения, без рецепта купить, obat
            kuat, obat aborsi, obat pembesar, zayiflama hap*, ilac siparis*, thuoc cuong duong, thuoc giam can, 伟哥,
            壮阳药, 减肥药, バイアグラ, 비아그라, 시알리스, 비아그라구매, حبوب الاجهاض, فياجرا, حبوب تنحيف, वियाग्रा, ยาลดน้ำหนัก, ไวอากร้า""",
            weak="""
            pills, pharmacy, medication*, meds, tablets, supplement*, detox, slimming, steroid*,
            herbal, dosage, xanax, tramadol, gummies, testosterone, libido, pastillas, farmacia, pilules, виагр*,
            таблетк*""",
        ),
        Indicator.GAMBLING: Family(
            strong="""
            casino bonus*, best casino*, casino online, casino games, casino site*, live casino, free spins, no
            deposit bonus, deposit bonus, welcome bonus, slot gacor, slot online, situs slot, judi online, judi bola,
            agen judi, agen slot, bandar togel, togel online, situs togel, slot88, poker online, daftar slot, rtp
            slot, maxwin, slot deposit, betting site*, betting tips, sports betting site*, sportsbook bonus, cricket
            betting id, online betting id, fixed matches, satta matka, satta king, teen patti, rummy app, 1xbet,
            bet365, 22bet, melbet, mostbet, jackpot winner, lottery winner, win real money, real money casino, online
            slots, crypto casino, casino app, casino en linea, casino sin deposito, apuestas deportivas online,
            tragamonedas gratis, cassino online, apostas esportivas online, jogo do tigrinho, casino en ligne, casino
            francais, paris sportifs en ligne, bonus sans depot, online casino echtgeld, casino ohne lizenz,
            spielautomaten kostenlos, казино онлайн, онлайн казино, лучш* казино, бесплатн* вращени*, играть в казино, игровые автоматы, ставки на спорт, букмекерск*
            контор*, бонус казино, вулкан казино, deneme bonusu, bahis siteleri, canli bahis, kacak bahis, casino
            siteleri, slot siteleri, nha cai, ca do bong da, tai xiu, no hu, soi cau, keo nha cai, danh bai doi
            thuong, 赌场, 博彩, 娱乐城, 百家乐, 体育投注, 网上赌博, 在线赌场, 彩票平台, 北京赛车, 六合彩, オンラインカジノ, パチスロ攻略, 카지노사이트, 바카라사이트, 토토사이트,
            먹튀검증, 온라인카지노, 파워볼사이트, 안전놀이터, كازينو اون لاين, مراهنات, สล็อต, บาคาร่า, คาสิโนออนไลน์, เว็บพนัน, แทงบอล,
            ऑनलाइन कैसीनो""",
            weak="""
            casino*, gambling, betting, bets, poker, slots, jackpot, lottery, roulette, blackjack, baccarat,
            bookmaker*, wager*, togel, judi, bahis, bonus, apuestas, apostas, cassino, казино, ставк*, лотере*""",
        ),
        Indicator.FINANCE: Family(
            strong="""
            make money online, earn money online, easy money, quick money, money from home, work from home and earn,
            earn from home, double your money, double your bitcoin, guaranteed profit*, guaranteed return*, guaranteed
            income, daily profit*, financial freedom, get rich, bitcoin investment, crypto investment*, crypto
            recovery, recover your bitcoin, recover lost crypto*, recover stolen, recovery expert*, recovery agent*,
            recover scammed, lost funds, bitcoin doubler, crypto signals, forex signals, forex trading platform,
            trading signals, binary options, forex robot, buy bitcoin, free bitcoin, free crypto, wallet connect, seed
            phrase, payday loan*, quick loan*, instant loan*, personal loan offer, loan offer, urgent loan*, loan
            without collateral, bad credit, apply for a loan, loan at 2, loan at 3, affordable interest rate, credit
            repair, debt relief, cash advance, investment opportunity, investment plan*, inheritance fund*, next of
            kin, million usd, million dollars fund, cloned cards, cvv shop, dumps with pin, paypal transfer hack, join
            illuminati, illuminati member*, prestamo* rapido*, prestamos urgentes, credito inmediato, dinero facil,
            ganar dinero online, ganar dinero desde casa, emprestimo rapido, ganhar dinheiro online, dinheiro facil,
            renda extra, pret rapide, pret entre particulier*, offre de pret, gagner de l argent, credit rapide,
            schnell geld verdienen, geld verdienen online, kredit ohne schufa, sofortkredit, займ* онлайн, быстр*
            займ*, кредит без отказа, заработок в интернете, быстрый заработок, пассивный доход, деньги в долг,
            pinjaman online, pinjaman cepat, dana cepat, vay tien nhanh, vay tien online, hizli kredi, kolay para, 贷款,
            快速贷款, 比特币投资, 刷单, 网赚, 兼职日结, 副業で稼ぐ, 即日融資, 대출상담, 급전, 코인투자, قروض سريعة, استثمار مضمون, اربح المال, ऑनलाइन पैसे
            कमाए""",
            weak="""
            passive income, trading bot, airdrop, presale, bitcoin*, crypto*, forex, loan*, invest*, profit*, trading,
            trader*, broker*, ethereum, usdt, nft*, wallet, blockchain, payout*, earnings, prestamo*, emprestimo*,
            kredit*, займ*, кредит*, криптовалют*, discount, bonus""",
        ),
        Indicator.SEO: Family(
            strong="""
            buy followers, instagram followers, tiktok followers, free followers, buy likes, buy views, buy
            subscribers, youtube views, youtube subscribers, buy reviews, google reviews, buy google reviews, buy
            trustpilot, smm panel, seo service*, seo expert*, seo agency, seo company, seo packages, seo backlinks,
            buy backlinks, dofollow backlink*, quality backlinks, backlink service*, guest post*, guest blog*, link
            building, link juice, domain authority, rank your website, rank on google, rank higher, first page of
            google, google ranking*, buy traffic, increase traffic, digital marketing agency, digital marketing
            company, digital marketing service*, social media marketing service*, web design company, web development
            company, website design service*, app development company, lead generation service*, email list for sale,
            buy verified, verified accounts, buy gmail accounts, buy old gmail, buy facebook accounts, pva accounts,
            buy aged, comprar seguidores, seguidores gratis, posicionamiento seo, agencia seo, ganhar seguidores,
            acheter des abonnes, acheter followers, agence seo, referencement google, follower kaufen, likes kaufen,
            seo agentur, накрутк* подписчик*, купить подписчик*, продвижение сайт*, раскрутк* сайт*, seo продвижение,
            jasa seo, jasa backlink, beli followers, takipci satin al, begeni satin al, dich vu seo, mua followers,
            tang follow, 刷粉, 买粉丝, 代刷, 外链, SEO优化, フォロワー購入, 被リンク, 팔로워 구매, 백링크, زيادة متابعين, شراء متابعين, تحسين محركات
            البحث, ปั้มไลค์, फॉलोअर्स""",
            weak="""
            seo, backlink*, followers, likes, subscribers, traffic, ranking, marketing, promotion, branding, leads,
            seguidores, posicionamiento, подписчик*, продвижени*""",
        ),
        Indicator.ADULT: Family(
            strong="""
            call girl*, escort service*, escorts, escort girl*, escort agency, independent escort*, vip escort*,
            female escort*, model escort*, russian girls, sexy girls, hot girls, hot singles, adult dating, sex
            dating, sex chat, sex cam*, webcam girls, live sex, free sex, sex video*, porn video*, free porn, xxx
            video*, nude pics, nude photo*, onlyfans leak*, sugar mommy, sugar daddy, sugar baby, casual encounters,
            erotic massage, body massage, happy ending, sex doll*, sex toy*, adult toys, putas, escorts en, chicas
            escort, videos porno, sexo gratis, acompanhantes, garotas de programa, rencontre sexe, plan cul, film
            porno, sexkontakte, escort dame*, sex treffen, проститутк*, шлюх*, интим услуг*, секс знакомств*, порно
            видео, девушки по вызову, bokep, video bokep, jasa pijat plus, escort bayan, eskort, gai goi, phim sex,
            约炮, 小姐上门, 援交, 成人视频, 外围女, 上门服务, 出会い系, アダルト動画, デリヘル, 출장안마, 출장마사지, 오피사이트, 야동, بنات ليل, سكس, कॉल गर्ल,
            एस्कॉर्ट, ไซด์ไลน์, หนังโป๊""",
            weak="""
            xxx, hookup*, sexy, dating, erotic, nude, porn*, escort, adult, singles, lonely, intimate, massage,
            sensual, horny, porno, секс, интим*, знакомств*""",
        ),
        Indicator.ESSAY_MILL: Family(
            strong="""
            essay writing service*, essay writer*, write my essay, write my paper, essay help, essay online, paper
            writing service*, custom essay*, cheap essay*, buy essay*, dissertation writing service*, dissertation
            help, thesis writing service*, thesis help online, assignment help*, assignment writing, homework help, do
            my homework, do my assignment, take my class, take my online class, take my exam, exam dumps, braindumps,
            pdf dumps, buy degree, fake degree*, buy diploma*, fake diploma*, university diploma for sale, buy ielts,
            ielts certificate without exam, coursework help, academic writing service*, plagiarism free, hire writer*,
            pay someone to, comprar tesis, hacer mi tarea, comprar titulo, comprar tcc, fazer meu tcc, acheter un
            memoire, redaction de memoire, hausarbeit schreiben lassen, ghostwriter bachelorarbeit, bachelorarbeit
            schreiben lassen, купить диплом*, дипломы на заказ, курсовая на заказ, написать диплом на заказ, jasa
            skripsi, joki tugas, joki skripsi, tez yazdirma, odev yaptirma, 代写, 论文代写, 代考, 毕业证办理, 文凭, 卒論代行, 논문대필, 레포트
            대행, كتابة رسائل ماجستير, حل واجبات""",
            weak="""
            essay*, homework, plagiarism, ghostwriter*, dumps, coursework, assignment*, diploma*, курсов*, диплом*""",
        ),
        Indicator.REPLICA_GOODS: Family(
            strong="""
            replica watch*, replica bag*, replica handbag*, replica shoes, replica rolex, fake rolex, rolex replica,
            louis vuitton outlet, designer replica*, cheap jordans, cheap nike, cheap jerseys, wholesale jerseys, nfl
            jerseys, michael kors outlet, coach outlet, ray ban outlet, ugg boots outlet, yeezy replica*, 1 1 replica,
            aaa quality, counterfeit money, counterfeit notes, fake money, buy counterfeit, fake passport*, fake id,
            buy fake, buy real passport*, buy driver*, buy driving licen*, registered passport, fake documents, clone
            phone*, replicas de relojes, bolsos replica, billetes falsos, replica relogio*, notas falsas, montre*
            replique*, faux billets, sac replique, replica uhren, falschgeld kaufen, fuhrerschein kaufen, реплика
            часов, копии часов, купить права, фальшивые деньги, tas kw, jam tangan replika, replika saat, 高仿, 精仿, A货,
            复刻表, 假钞, 办证, スーパーコピー, コピー時計, 레플리카, 짝퉁, ساعات تقليد, رخصة قيادة مزورة""",
            weak="""
            replica*, rolex, gucci, vuitton, chanel, nike, adidas, outlet, wholesale, handbag*, sneakers, jerseys,
            luxury, counterfeit""",
        ),
        Indicator.FAKE_SUPPORT: Family(
            strong="""
            customer care number, customer support number, customer service number, helpline number, toll free number,
            tech support number, support phone number, technical support phone, call customer service, cash app
            support, cash app refund, coinbase support, binance support, metamask support, paypal support, quickbooks
            support, hp printer support, epson support, norton support, mcafee support, gmail support, yahoo support,
            aol support, facebook support, airlines reservation*, airlines booking*, airlines customer, airlines name
            change, flight change policy, loan app customer care, speak to a live person, numero de atencion al
            cliente, telefono gratuito soporte, 客服电话, 고객센터 번호, رقم خدمة العملاء""",
            weak="""
            helpline, tollfree, hotline, refund*, troubleshoot*, airlines, reservation*, printer, antivirus""",
        ),
        Indicator.SPELL_CASTING: Family(
            strong="""
            spell caster, love spell*, lost love spell*, bring back lost love*, bring back your ex, get your ex back,
            black magic specialist, vashikaran, love problem solution, voodoo spell*, money spell*, magic ring*, witch
            doctor, traditional healer, sangoma, astrologer in, best astrologer, psychic reading*, powerful spell*,
            love marriage specialist, amarres de amor, brujo, vidente gratis, amarracao amorosa, retour affectif,
            voyance gratuite, liebeszauber, приворот, снять порчу, ask buyusu, 爱情降头, جلب الحبيب, वशीकरण""",
            weak="spell*, voodoo, psychic*, astrolog*, horoscope, occult",
        ),
        Indicator.PIRATED_SOFTWARE: Family(
            strong="""
            crack download, full version crack, cracked version, license key free, serial key, keygen, activation key
            free, product key free, free download full, mod apk, apk mod, hack apk, unlimited coins, unlimited gems,
            free robux, free v bucks, generator no human verification, cheats free, aimbot, watch full movie, full
            movie online, free streaming hd, watch free online, live stream free, torrent download, iptv subscription,
            iptv service*, buy iptv, best iptv, hire a hacker, hire hacker, hack facebook account, hack instagram,
            phone hacker, whatsapp hack, descargar gratis crack, pelicula completa, ver online gratis, baixar crack,
            filme completo, telecharger crack, film complet, streaming gratuit, abonnement iptv, kostenlos downloaden
            vollversion, ganzer film, скачать бесплатно crack, кряк скачать, смотреть онлайн бесплатно, взлом вк,
            nonton film, hack full, phan mem crack, 破解版下载, 免费在线观看, 크랙 다운로드, 무료 다시보기""",
            weak="crack, keygen, apk, torrent*, cheats, iptv, streaming, hack*, скачать",
        ),
        Indicator.ADVERTISING: Family(
            strong="""
            buy now, order now, shop now, click here to buy, free shipping, best price guaranteed, money back
            guarantee, 100 money back, limited time offer, special offer, promo code*, coupon code*, discount code*,
            cheap price*, at cheap, buy online, buy cheap,             compra ahora, comprar online, envio
            gratis, oferta limitada, compre agora, frete gratis, achetez maintenant, livraison gratuite, jetzt kaufen,
            jetzt bestellen, kostenloser versand, gunstig kaufen, купить недорого, купить онлайн, заказать сейчас,
            скидка, недорого, beli sekarang, harga murah, satin al, ucuz fiyat*, mua ngay, gia re, 立即购买, 优惠, 加微信, 包邮,
            今すぐ購入, 送料無料, 激安, 지금 구매, 무료배송, 최저가, اشتري الان, اطلب الان, شحن مجاني, ราคาถูก, अभी खरीदें""",
            weak="""
            packers and movers, movers and packers, locksmith, plumber in, cleaning service*, pest control, interior designer* in, real estate agent, luxury apartments, best dentist, hair transplant, for sale online, lowest price*, best prices,
            taxi service*, car rental, roofing, dubai, click here, visit our website, visit our site, our website,
            visit us, call us, call now, contact us today, best price, affordable, cheap*, discount*, guaranteed,
            sale, offer*, deals, customers, clients, premium, top quality, high quality, exclusive, trusted, hire us,
            book now, services, leading company, leading provider, oferta*, descuento*, barato*, desconto*, promocao,
            remise, angebot*, rabatt, billig, скидк*, дешев*, заказать, diskon, murah, indirim""",
        ),
    }
)

EARNINGS = """
    earn money, make money, earn up to, earn daily, earn per day, per day from home, extra income, passive income,
    daily profit*, guaranteed profit*, cash prize, you have won, you won, million dollars, inheritance, investment
    return*, double your, free money, ganar dinero, ganhar dinheiro, gagner de l argent, geld verdienen, заработ*, 赚钱,
    稼げる, 돈벌이, ربح المال"""
"""Promises of money; with URGENCY beside them they are an indicator."""

URGENCY = """
    act now, act fast, hurry, limited time, today only, only today, last chance, before it s too late, don t miss,
    dont miss, don t wait, urgent, urgently, immediately, instantly, right now, sign up now, join now, register now,
    limited spots, expires soon, while stocks last, apurate, oferta limitada, no te lo pierdas, so hoje, depeche*, nur
    heute, schnell sein, срочно, только сегодня, торопит*, успей*, 立即, 马上, 限时, 今だけ, 지금 바로, 마감임박, الان فقط"""
"""Pressure to act at once."""

NAME_PARTS = """
    viagra, cialis, pharmacy, pills, casino, betting, bet365, 1xbet, slot88, slots, togel, poker, jackpot, judi,
    escort, callgirl, sexy, porn, dating, backlink, followers, seo, smm, digitalmarketing, marketingagency, payday,
    loans, quickloan, forex, crypto, bitcoin, essaywriting, essaywriter, assignmenthelp, homeworkhelp, replica,
    outlet, cheap, discount, coupon, promo, buyonline, apk, iptv, keto, cbd, gummies, vashikaran, astrologer,
    spellcaster, locksmith, movers, 4u, 24h, taxi, customercare, helpline"""
"""Parts of user names: whole parts of a name (cheap_pills_4u); those of six letters and more anywhere inside it."""

INJECTION = (
    # Commands about earlier instructions, in several languages.
    r"(?:ignore|disregard|forget|override|bypass)\s(?:(?:all|any|the|your|my|of|these|those|every|everything)\s){0,4}"
    r"(?:previous|prior|above|earlier|preceding|former|system|other|safety)\s(?:\w{1,30}\s){0,2}?"
    r"(?:instruction|prompt|rule|message|direction|command|guideline|context)",
    r"(?:ignora|olvida|ignore\s(?:les|tes|toutes)|ignorez|oublie[zr]?|vergiss|ignoriere|esque[çc]a)\s(?:\w{1,30}\s){0,3}?"
    r"(?:instruc|anweisung|consigne|r[eè]gles|regeln|reglas|regras)",
    r"(?:игнорируй|забудь|проигнорируй)\w{0,3}\s(?:\w{1,30}\s){0,3}?(?:инструкц|указани|правил)",
    r"忽略(?:之前|以上|上面|前面|所有|先前).{0,6}(?:指令|指示|提示|说明|规则)",
    r"(?:以前|上記|これまで)の.{0,4}(?:指示|命令|プロンプト).{0,4}無視",
    r"이전.{0,6}(?:지시|명령|프롬프트).{0,6}무시",
    r"تجاهل.{0,20}(?:التعليمات|الأوامر)",
    # A verdict in the text.
    r"\bis[_ ]spam\b[\"'“”`\s]{0,4}[:=]",
    r"(?:this|it|content|post|text|profile|item|following)\s(?:is|was|be)\s"
    r"(?:definitely\s|certainly\s|absolutely\s)?not\s(?:a\s)?spam\b",
    r"(?:classify|mark|label|treat|flag|rate|answer|respond|reply|output)\s(?:\w{1,30}\s){0,4}?(?:as\s|with\s)?"
    r"(?:not[ _-]spam|ham|non[ _-]spam|legitimate)\b",
    # The tokens of chat templates, roles, and the end of a fence.
    r"<\|[a-z_]{2,24}\|>|\[/?inst\]|<</?sys>>|</?(?:start|end)_of_turn>|<｜[^｜\n]{1,24}｜>",
    r"</(?:content|data|item|document|text|user_content|untrusted|input|user|message)>",
    r"(?:^|\n)\s?(?:#{1,4}\s?|\*\*)?(?:system|assistant|developer|system prompt)\s?(?:\*\*)?\s?:",
    r"\byou\sare\snow\s(?:a|an|in)\b|\bnew\s(?:system\s)?(?:instructions?|prompt)\s?:",
    r"\bend\sof\s(?:the\s)?(?:prompt|instructions|user\s(?:content|input))\b",
    # Whom it addresses.
    r"\b(?:note|message|instruction)s?\s(?:to|for)\s(?:the\s)?"
    r"(?:ai|llm|model|moderator|classifier|checker|spam\sfilter|assistant)\b",
    r"\bas\san?\s(?:ai|llm|language\smodel|classifier|moderator)\b.{0,40}\b(?:must|should|will|answer|output)\b",
)
"""Regular expressions of a text that talks to the model, for text in lower case with single blanks. Linear time: every
repetition has a limit.

`SYSTEM:` at the start of a line and closing markup stand in honest texts too: one of these alone never decides.
"""
